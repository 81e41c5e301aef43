"""The repair of Triton's interpreter is right, and still needed."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

from kangaroo_kernels import testing
from tests.kernels.interpreter import CUTTING, alike, faithful, to_bfloat16

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="kernels are compiled where there is a GPU"
)


@triton.jit
def _convert_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK)
    tl.store(out_ptr + place, tl.load(x_ptr + place).to(tl.bfloat16))


@triton.jit
def _double_kernel(x_ptr, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + place)
    tl.store(x_ptr + place, x + x)


def converted(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x, dtype=torch.bfloat16)
    _convert_kernel[(1,)](x, out, BLOCK=len(x))
    return out


def every_kind_of_number() -> torch.Tensor:
    """Random bit patterns: all exponents, subnormals, ties, infinities; no NaN."""
    bits = torch.randint(-(2**31), 2**31 - 1, (1 << 16,), dtype=torch.int64).to(torch.int32)
    bits[: 1 << 12] &= ~0xFFFF
    bits[: 1 << 12] |= 0x8000  # exactly between two bfloat16
    x = bits.view(torch.float32)
    return torch.where(x.isnan(), 1.0, x)


def test_to_bfloat16_rounds_as_torch_does() -> None:
    x = every_kind_of_number()
    bits = torch.from_numpy(to_bfloat16(x.numpy()).view(np.int16))
    assert torch.equal(bits, x.bfloat16().view(torch.int16))


def test_repaired_kernels_round_to_nearest() -> None:
    x = every_kind_of_number()
    with faithful():
        assert torch.equal(converted(x).view(torch.int16), x.bfloat16().view(torch.int16))


def test_the_interpreter_still_cuts_bits_off() -> None:
    """When this fails the interpreter has learnt to round: remove the repair."""
    x = torch.full((16,), 1.9999)
    with patch.object(interpreter, "_convert_float", CUTTING):
        assert converted(x).tolist() != x.bfloat16().tolist()


def test_rows_are_summed_alike() -> None:
    a, b = torch.randn(16, 37), torch.randn(37, 24)
    product = torch.from_numpy(alike(a.numpy(), b.numpy(), np.float32))
    testing.assert_within_budget(product, a.double() @ b.double(), a @ b)
    for shift in range(1, 16):
        rolled = alike(a.roll(shift, 0).numpy(), b.numpy(), np.float32)
        testing.assert_same_bits(torch.from_numpy(rolled), product.roll(shift, 0))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32], ids=str)
def test_integers_that_overflow_are_seen(dtype: torch.dtype) -> None:
    x = torch.full((16,), torch.iinfo(dtype).max // 2, dtype=dtype)
    with faithful():
        _double_kernel[(1,)](x, BLOCK=16)
        x[3] += 1
        with pytest.raises(interpreter.InterpreterError, match="OverflowError"):
            _double_kernel[(1,)](x, BLOCK=16)
