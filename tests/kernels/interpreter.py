"""Repairs of Triton's interpreter, for tests.

It makes a bfloat16 by cutting bits off a float32, where GPUs round to nearest. And it multiplies by
BLAS, where a row's order of summation depends on its place in the tile; tensor cores sum all rows
alike. And it remembers nothing: it swaps the whole language for its own again in every call of a
device function, builds a table of all dtypes to look one up, and every tensor's type anew. And it
works out the overflow of integers for an assertion that it leaves out; here they are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

CUTTING = interpreter._convert_float
SWAPPING = interpreter._patch_lang
LOOKING_UP = interpreter._get_np_dtype
SHAPING = tl.block_type.__init__
MAKING = tl.tensor.__init__
EXACT = {"add": np.add, "sub": np.subtract, "mul": np.multiply}


def to_bfloat16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of x rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)


def alike(a: NDArray[Any], b: NDArray[Any], out: Any) -> NDArray[Any]:
    """a [M, K] times b [K, N], every element summed over k in order."""
    return (a.astype(out)[:, :, None] * b.astype(out)[None]).sum(axis=1)


def check_overflow(_self: Any, lhs: Any, rhs: Any, op: Any) -> None:
    """Raises OverflowError where integers of fewer than 64 bits leave their range."""
    dtype = lhs.handle.data.dtype
    if dtype.itemsize < 8:
        exact = EXACT[op.__name__](lhs.handle.data, rhs.handle.data, dtype=np.int64)
        if exact.min() < np.iinfo(dtype).min or exact.max() > np.iinfo(dtype).max:
            raise OverflowError(f"{op.__name__}: expected {dtype}, got {exact}")


@contextmanager
def faithful(check: Callable[..., None] = check_overflow) -> Iterator[None]:
    """Kernels interpreted in here round, and treat the rows of a tile, as GPUs do; `check` looks at
    every sum and product of integers.
    """

    def convert(data: NDArray[Any], source: Any, target: Any, rounding: Any) -> NDArray[Any]:
        if source == tl.float32 and target == tl.bfloat16:
            return to_bfloat16(data)
        return CUTTING(data, source, target, rounding)

    def dot(_self: Any, a: Any, b: Any, acc: Any, *_options: Any) -> Any:
        product = alike(a.data, b.data, acc.data.dtype)
        return interpreter.TensorHandle(product + acc.data, acc.dtype.scalar)

    with (
        remembering(),
        patch.object(interpreter, "_convert_float", convert),
        patch.object(TritonSemantic, "binary_op_sanitize_overflow_impl", check),
        patch.object(interpreter.InterpreterBuilder, "create_dot", dot),
    ):
        yield


@contextmanager
def remembering() -> Iterator[None]:
    """The language is swapped once in each kernel; types, which never change, are made once."""
    dtypes: dict[str, Any] = {}
    shapes: dict[Any, dict[str, Any]] = {}
    tensors: dict[str, dict[str, Any]] = {}

    def look_up(dtype: Any) -> Any:
        name = dtype.scalar.name
        if name not in dtypes:
            dtypes[name] = LOOKING_UP(dtype)
        return dtypes[name]

    def shape(self: Any, element_ty: Any, sizes: Any) -> None:
        key = element_ty.name, *[getattr(size, "value", size) for size in sizes]
        if key not in shapes:
            SHAPING(self, element_ty, sizes)
            shapes[key] = dict(vars(self))
        vars(self).update(shapes[key])

    def make(self: Any, handle: Any, dtype: Any) -> None:
        if dtype.name not in tensors:
            MAKING(self, handle, dtype)
            tensors[dtype.name] = dict(vars(self))
        vars(self).update(tensors[dtype.name], handle=handle)

    def swap(fn: Any) -> Any:
        seen = [x for x in fn.__globals__.values() if x is tl or x is tl.core]
        swapped = not any(tl.core.is_builtin(lang.load) for lang in seen)
        return interpreter._LangPatchScope() if swapped else SWAPPING(fn)

    with (
        patch.object(interpreter, "_patch_lang", swap),
        patch.object(interpreter, "_get_np_dtype", look_up),
        patch.object(tl.block_type, "__init__", shape),
        patch.object(tl.tensor, "__init__", make),
    ):
        yield
