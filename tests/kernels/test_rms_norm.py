"""rms_norm: every implementation against float64, and the bitwise laws."""

from __future__ import annotations

import pytest
import torch

from kangaroo_kernels import testing
from kangaroo_kernels.rms_norm import RMSNorm
from tests.kernels import laws, naive

EPS = 1e-5
WIDTHS = [1, 13, 40, 192, 1001]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.thorough
def test_error_budget(rms_norm: RMSNorm, dtype: torch.dtype, width: int) -> None:
    budget = testing.Budget()
    weight = testing.random_norm_weight(width, dtype)
    for shape in [(1,), (2,), (3, 5), (16,), (1, 17), (65,), (2, 3, 4)]:
        for scale in (1e-3, 1.0, 30.0):
            x = (scale * torch.randn(*shape, width)).to(dtype)
            wide_x, wide_weight = testing.widen(x, weight)
            exact = naive.rms_norm(wide_x, wide_weight, EPS)
            budget.add(rms_norm(x, weight, EPS), exact, naive.rms_norm(x, weight, EPS))
    budget.check()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.thorough
def test_row_invariance(rms_norm: RMSNorm, dtype: torch.dtype, width: int) -> None:
    weight = testing.random_norm_weight(width, dtype)
    x = torch.randn(1, 100, width).to(dtype)
    laws.check_row_invariance(lambda rows: rms_norm(rows, weight, EPS), x)


@pytest.mark.parametrize("shape", [(1, 1, 4096), (1, 65, 1001)], ids=str)
@pytest.mark.thorough
def test_thread_invariance(rms_norm: RMSNorm, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    weight = testing.random_norm_weight(shape[-1], dtype)
    x = torch.randn(shape).to(dtype)
    laws.check_thread_invariance(lambda: rms_norm(x, weight, EPS))


def test_zeros_stay_zeros(rms_norm: RMSNorm) -> None:
    zeros = torch.zeros(2, 3, 40)
    testing.assert_same_bits(rms_norm(zeros, testing.random_norm_weight(40), EPS), zeros)


def test_strided_input(fast_rms_norm: RMSNorm) -> None:
    weight = testing.random_norm_weight(40)
    laws.check_strided(lambda x: fast_rms_norm(x, weight, EPS), torch.randn(2, 3, 40))


@pytest.mark.parametrize("bad", [torch.ones(41), torch.ones(1, 40), torch.ones(40).double()])
def test_bad_inputs(fast_rms_norm: RMSNorm, bad: torch.Tensor) -> None:
    inputs = {"x": torch.randn(2, 3, 40), "weight": torch.ones(40), "eps": EPS}
    laws.check_refusal(fast_rms_norm, inputs, "weight", bad)
