"""gated_mlp: every implementation against float64, and the bitwise laws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kangaroo_kernels import testing
from kangaroo_kernels.gated_mlp import GatedMLP
from tests.kernels import laws, naive

EPS = 1e-5
SHAPES = [(40, 37), (193, 3), (192, 512), (65, 130), (1, 1)]  # C, F
BATCHES = [(1, 1), (1, 2), (1, 3), (1, 5), (1, 16), (1, 17), (1, 65), (2, 3), (2, 17)]  # B, N


def make_weights(shape: tuple[int, int], dtype: torch.dtype) -> dict[str, Tensor]:
    width, hidden = shape
    return {
        "gate_up": testing.random_weight(2 * hidden, width, dtype),
        "down": testing.random_weight(width, hidden, dtype),
        "norm_weight": testing.random_norm_weight(width, dtype),
    }


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.thorough
def test_error_budget(gated_mlp: GatedMLP, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    budget = testing.Budget()
    weights = make_weights(shape, dtype)
    for batch, num_nodes in BATCHES:
        x = torch.randn(batch, num_nodes, shape[0]).to(dtype)
        actual = gated_mlp(x, **weights, eps=EPS)
        exact = naive.gated_mlp(*testing.widen(x, *weights.values()), EPS)
        budget.add(actual, exact, naive.gated_mlp(x, *weights.values(), EPS))
    budget.check()


@pytest.mark.parametrize("shape", [*SHAPES, (192, 515)])
@pytest.mark.bitwise
@pytest.mark.thorough
def test_row_invariance(gated_mlp: GatedMLP, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    weights = make_weights(shape, dtype)
    x = torch.randn(1, 100, shape[0]).to(dtype)
    laws.check_row_invariance(lambda rows: gated_mlp(rows, **weights, eps=EPS), x)


@pytest.mark.parametrize("num_nodes", [1, 5, 16, 65])
@pytest.mark.bitwise
@pytest.mark.thorough
def test_thread_invariance(gated_mlp: GatedMLP, dtype: torch.dtype, num_nodes: int) -> None:
    weights = make_weights((192, 512), dtype)
    x = torch.randn(1, num_nodes, 192).to(dtype)
    laws.check_thread_invariance(lambda: gated_mlp(x, **weights, eps=EPS))


def test_saturated_gates(gated_mlp: GatedMLP) -> None:
    """silu(g) is g or 0 far out; exp may overflow on the way but not show."""
    x = torch.tensor([[[200.0, 1.0], [-200.0, 1.0]]])
    weights = {"gate_up": torch.tensor([[90.0, 0.0], [0.0, 1.0]]), "down": torch.ones(2, 1)}
    inputs = [x, *weights.values(), torch.ones(2)]
    exact = naive.gated_mlp(*testing.widen(*inputs), EPS)
    low_precision = naive.gated_mlp(*inputs, EPS)
    testing.assert_within_budget(gated_mlp(*inputs, EPS), exact, low_precision)


def test_out_is_written(gated_mlp: GatedMLP, dtype: torch.dtype) -> None:
    x, weights = torch.randn(1, 3, 40).to(dtype), make_weights((40, 37), dtype)
    place = torch.full((5, 40), torch.nan).to(dtype)
    out = place[1:4][None]
    assert gated_mlp(x, **weights, eps=EPS, out=out) is out
    testing.assert_same_bits(place[1:4], gated_mlp(x, **weights, eps=EPS)[0])
    assert place[[0, 4]].isnan().all()


def test_inputs_are_left_alone(gated_mlp: GatedMLP) -> None:
    inputs = {"x": torch.randn(2, 5, 40), **make_weights((40, 37), torch.float32)}
    before = {name: t.clone() for name, t in inputs.items()}
    gated_mlp(**inputs, eps=EPS)
    for name, original in before.items():
        testing.assert_same_bits(inputs[name], original)


def test_strided_input(fast_gated_mlp: GatedMLP) -> None:
    weights = make_weights((40, 37), torch.float32)
    laws.check_strided(lambda x: fast_gated_mlp(x, **weights, eps=EPS), torch.randn(2, 3, 40))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("x", torch.zeros(3, 40)),
        ("gate_up", torch.zeros(74, 41)),
        ("gate_up", torch.zeros(73, 40)),
        ("gate_up", torch.zeros(74, 40, dtype=torch.float64)),
        ("down", torch.zeros(40, 38)),
        ("down", torch.zeros(41, 37)),
        ("norm_weight", torch.zeros(39)),
        ("out", torch.zeros(1, 2, 40)),
        ("out", torch.zeros(1, 3, 40, dtype=torch.float64)),
    ],
)
def test_bad_inputs(fast_gated_mlp: GatedMLP, name: str, bad: Tensor) -> None:
    inputs = {"x": torch.randn(1, 3, 40), **make_weights((40, 37), torch.float32), "eps": EPS}
    laws.check_refusal(fast_gated_mlp, inputs, name, bad)
