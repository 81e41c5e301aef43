"""Repairs of Triton's interpreter, for tests.

It makes a bfloat16 by cutting bits off a float32, where GPUs round to nearest. And it multiplies by
BLAS, where a row's order of summation depends on its place in the tile; tensor cores sum all rows
alike. And it swaps the whole language for its own again in every call of a device function, which
takes longer than most of them run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter

CUTTING = interpreter._convert_float
SWAPPING = interpreter._patch_lang


def to_bfloat16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of x rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)


def alike(a: NDArray[Any], b: NDArray[Any], out: Any) -> NDArray[Any]:
    """a [M, K] times b [K, N], every element summed over k in order."""
    return (a.astype(out)[:, :, None] * b.astype(out)[None]).sum(axis=1)


@contextmanager
def faithful() -> Iterator[None]:
    """Kernels interpreted in here round, and treat the rows of a tile, as GPUs do."""

    def convert(data: NDArray[Any], source: Any, target: Any, rounding: Any) -> NDArray[Any]:
        if source == tl.float32 and target == tl.bfloat16:
            return to_bfloat16(data)
        return CUTTING(data, source, target, rounding)

    def dot(_self: Any, a: Any, b: Any, acc: Any, *_options: Any) -> Any:
        product = alike(a.data, b.data, acc.data.dtype)
        return interpreter.TensorHandle(product + acc.data, acc.dtype.scalar)

    def swap(fn: Any) -> Any:
        seen = [x for x in fn.__globals__.values() if x is tl or x is tl.core]
        swapped = not any(tl.core.is_builtin(lang.load) for lang in seen)
        return interpreter._LangPatchScope() if swapped else SWAPPING(fn)

    with (
        patch.object(interpreter, "_convert_float", convert),
        patch.object(interpreter, "_patch_lang", swap),
        patch.object(interpreter.InterpreterBuilder, "create_dot", dot),
    ):
        yield
