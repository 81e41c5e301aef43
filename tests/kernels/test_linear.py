"""linear: every implementation against float64, and the bitwise laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo_kernels import testing
from kangaroo_kernels.linear import Linear
from tests.kernels import laws, naive

EPS = 1e-5
SHAPES = [(40, 37), (193, 3), (192, 512), (65, 130), (1, 1)]  # C, O
BATCHES = [(1, 1), (1, 2), (1, 3), (1, 5), (1, 16), (1, 17), (1, 65), (2, 3), (2, 17)]  # B, N


def make_inputs(
    batch: int, num_nodes: int, shape: tuple[int, int], dtype: torch.dtype
) -> list[Any]:
    """x, weight, bias, norm_weight, residual."""
    width, num_out = shape
    return [
        torch.randn(batch, num_nodes, width).to(dtype),
        testing.random_weight(num_out, width, dtype),
        torch.randn(num_out).to(dtype),
        testing.random_norm_weight(width, dtype),
        torch.randn(batch, num_nodes, num_out).to(dtype),
    ]


@pytest.mark.parametrize("absent", [(), (2,), (3,), (4,), (2, 3, 4)], ids=lambda a: f"without{a}")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.thorough
def test_error_budget(
    linear: Linear, dtype: torch.dtype, shape: tuple[int, int], absent: tuple[int, ...]
) -> None:
    budget = testing.Budget()
    for batch, num_nodes in BATCHES:
        inputs = make_inputs(batch, num_nodes, shape, dtype)
        for missing in absent:
            inputs[missing] = None
        x, weight, bias, norm_weight, residual = inputs
        actual = linear(x, weight, bias=bias, norm_weight=norm_weight, eps=EPS, residual=residual)
        exact = naive.linear(*testing.widen(*inputs), eps=EPS)
        budget.add(actual, exact, naive.linear(*inputs, eps=EPS))
    budget.check()


@pytest.mark.parametrize("shape", [(40, 37), (1100, 5)])
def test_out_is_written(linear: Linear, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """What is asked for in float32 has float32's accuracy, for it is not rounded on the way."""
    x, weight, bias, norm_weight, residual = make_inputs(2, 3, shape, dtype)
    around = {"bias": bias, "norm_weight": norm_weight, "eps": EPS, "residual": residual}
    out = torch.empty_like(residual)
    assert linear(x, weight, **around, out=out) is out
    testing.assert_same_bits(out, linear(x, weight, **around))
    wide = torch.empty_like(residual, dtype=torch.float32)
    assert linear(x, weight, bias=bias, residual=residual, out=wide) is wide
    exact = naive.linear(*testing.widen(x, weight, bias, None, residual), eps=EPS)
    testing.assert_within_budget(wide, exact, summed_in_float32(x, weight) + bias + residual)


def summed_in_float32(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T. A GPU's tensor cores, which 16-bit numbers go through there, cut every sum of 16
    products and what came before off where float32 ends; towards 0, not to the nearest.
    """
    if x.dtype == torch.float32 or not x.is_cuda:
        return naive.linear(x.float(), weight.float(), None, None, None, eps=EPS)
    acc = torch.zeros(*x.shape[:2], len(weight))
    for a, b in zip(x.double().split(16, dim=2), weight.double().split(16, dim=1), strict=True):
        exact = acc.double() + a @ b.T
        acc = exact.float()
        acc = torch.where(acc.abs() > exact.abs(), acc.nextafter(torch.zeros_like(acc)), acc)
    return acc


@pytest.mark.parametrize(("size", "eps"), [(9000.0, 0.0), (1e-3, 0.0), (1e-1, 0.5)])
def test_the_norm_of_large_and_small_rows(
    linear: Linear, dtype: torch.dtype, size: float, eps: float
) -> None:
    """A row times the norm's weight may leave float16's range, its result does not."""
    x, weight = torch.randn(1, 3, 40), testing.random_weight(16, 40, dtype)
    x[..., 7] = 1.0
    x, norm = (size * x).to(dtype), torch.full((40,), 8.0).to(dtype)
    rows = x.float() / (x.float().square().mean(-1, keepdim=True) + eps).sqrt()
    low = naive.linear(rows.to(dtype), weight * norm, None, None, None, eps=0.0)
    exact = naive.linear(*testing.widen(x, weight, None, norm, None), eps=eps)
    testing.assert_within_budget(linear(x, weight, norm_weight=norm, eps=eps), exact, low)


@pytest.mark.parametrize("shape", [*SHAPES, (512, 192), (4200, 9)])
@pytest.mark.bitwise
@pytest.mark.thorough
def test_row_invariance(linear: Linear, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    x, weight, bias, norm_weight, _ = make_inputs(1, 100, shape, dtype)
    laws.check_row_invariance(lambda rows: linear(rows, weight), x)
    laws.check_row_invariance(
        lambda rows: linear(rows, weight, bias=bias, norm_weight=norm_weight, eps=EPS), x
    )


@pytest.mark.parametrize("num_nodes", [1, 5, 16, 65])
@pytest.mark.bitwise
@pytest.mark.thorough
def test_thread_invariance(linear: Linear, dtype: torch.dtype, num_nodes: int) -> None:
    x, weight, bias, norm_weight, residual = make_inputs(1, num_nodes, (192, 1000), dtype)
    laws.check_thread_invariance(
        lambda: linear(x, weight, bias=bias, norm_weight=norm_weight, eps=EPS, residual=residual)
    )


def test_inputs_are_left_alone(linear: Linear) -> None:
    inputs = make_inputs(2, 5, (40, 37), torch.float32)
    before = [t.clone() for t in inputs]
    x, weight, bias, norm_weight, residual = inputs
    linear(x, weight, bias=bias, norm_weight=norm_weight, eps=EPS, residual=residual)
    for after, original in zip(inputs, before, strict=True):
        testing.assert_same_bits(after, original)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("x", torch.zeros(3, 40)),
        ("weight", torch.zeros(37, 41)),
        ("weight", torch.zeros(37, 40, dtype=torch.float64)),
        ("bias", torch.zeros(36)),
        ("norm_weight", torch.zeros(39)),
        ("residual", torch.zeros(1, 3, 36)),
        ("residual", torch.zeros(1, 2, 37)),
        ("out", torch.zeros(1, 3, 36)),
        ("out", torch.zeros(1, 3, 37, dtype=torch.float64)),
        ("out", torch.zeros(1, 37, 3).mT),
    ],
)
def test_bad_inputs(fast_linear: Linear, name: str, bad: torch.Tensor) -> None:
    names = ("x", "weight", "bias", "norm_weight", "residual")
    inputs = dict(zip(names, make_inputs(1, 3, (40, 37), torch.float32), strict=True))
    laws.check_refusal(lambda **kwargs: fast_linear(**kwargs, eps=EPS), inputs, name, bad)
