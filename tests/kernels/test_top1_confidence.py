"""top1_confidence: every implementation against float64, the tie rule, and the bitwise laws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kangaroo_kernels import testing
from kangaroo_kernels.top1_confidence import Top1Confidence
from tests.kernels import laws, naive

EPS = 1e-5
SHAPES = [(40, 37), (193, 3), (192, 4096), (65, 130), (1, 1)]  # C, V
# B, N; the last so that the largest error of so few numbers is not luck
BATCHES = [(1, 1), (1, 2), (1, 3), (1, 5), (1, 16), (1, 17), (1, 65), (2, 3), (2, 17), (4, 100)]


def make_inputs(
    batch: int, num_nodes: int, shape: tuple[int, int], dtype: torch.dtype
) -> dict[str, Tensor]:
    width, vocab = shape
    return {
        "h": torch.randn(batch, num_nodes, width).to(dtype),
        "head": (3 * testing.random_weight(vocab, width)).to(dtype),  # sure and unsure rows
        "norm_weight": testing.random_norm_weight(width, dtype),
    }


def as_tensor(answer: tuple[Tensor, Tensor]) -> Tensor:
    """Token ids and confidences [B, N] as one tensor [B, N, 2] of the same information."""
    return torch.stack([t.double() for t in answer], dim=-1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.thorough
def test_error_budget(
    top1_confidence: Top1Confidence, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    budget = testing.Budget()
    for batch, num_nodes in BATCHES:
        inputs = make_inputs(batch, num_nodes, shape, dtype)
        tokens, confidence = top1_confidence(**inputs, eps=EPS)
        assert tokens.shape == confidence.shape == (batch, num_nodes)
        assert (tokens.dtype, confidence.dtype) == (torch.int64, torch.float32)
        exact = naive.logits(*testing.widen(*inputs.values()), EPS)
        low = naive.logits(*inputs.values(), EPS)
        # Another token than the best may win only if the budget of the logits lets two cross.
        behind = exact.amax(-1) - exact.gather(-1, tokens[..., None])[..., 0]
        assert (behind <= 2 * 2 * (low.double() - exact).abs().max()).all(), behind.max()
        low_confidence = low.softmax(-1).amax(-1).float()
        budget.add(confidence, exact.softmax(-1).amax(-1), low_confidence)
    budget.check()


@pytest.mark.parametrize(
    ("vocab", "best"),
    [
        (4096, [7, 4095]),
        (4096, [1000, 1001]),
        (4096, [0, 2048]),
        (4096, [63, 64]),
        (1001, [1000, 15, 16]),
        (37, [36, 35]),
        (5, [4, 2, 3]),
        (130, list(range(130))),
    ],
)
def test_ties_go_to_the_lowest_id(
    top1_confidence: Top1Confidence, dtype: torch.dtype, vocab: int, best: list[int]
) -> None:
    """Small integers, so that every order of summation gives exactly the same logits."""
    signs = torch.where(torch.arange(16) % 3 == 0, -1.0, 1.0)
    head = torch.where(torch.arange(16) < 4, signs, 0.0).repeat(vocab, 1)  # logit 4
    head[best] = torch.where(torch.arange(16) < 9, signs, 0.0)  # logit 9
    inputs = [t.to(dtype) for t in (signs.expand(2, 3, 16).contiguous(), head, torch.ones(16))]
    tokens, _ = top1_confidence(*inputs, 0.0)
    assert tokens.tolist() == [[min(best)] * 3] * 2


def test_large_logits_do_not_overflow(top1_confidence: Top1Confidence) -> None:
    head = torch.zeros(50, 40)
    head[11] = 1000.0
    for sign, token, expected in [(1.0, 11, 1.0), (-1.0, 0, 1 / 49)]:
        tokens, confidence = top1_confidence(
            torch.full((1, 1, 40), sign), head, torch.ones(40), EPS
        )
        assert tokens.item() == token
        # Through a logsumexp of log 49, whose half ulp is 1.2e-7, and an exponential of it.
        assert confidence.item() == pytest.approx(expected, rel=5e-7)


@pytest.mark.parametrize("shape", [(40, 37), (193, 3), (192, 1000), (65, 130)])
@pytest.mark.thorough
def test_row_invariance(
    top1_confidence: Top1Confidence, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    inputs = make_inputs(1, 100, shape, dtype)
    head, norm_weight = inputs["head"], inputs["norm_weight"]
    laws.check_row_invariance(
        lambda h: as_tensor(top1_confidence(h, head, norm_weight, EPS)), inputs["h"]
    )


@pytest.mark.parametrize("num_nodes", [1, 5, 16, 65])
@pytest.mark.thorough
def test_thread_invariance(
    top1_confidence: Top1Confidence, dtype: torch.dtype, num_nodes: int
) -> None:
    inputs = make_inputs(1, num_nodes, (192, 1000), dtype)
    laws.check_thread_invariance(lambda: as_tensor(top1_confidence(**inputs, eps=EPS)))


def test_strided_input(fast_top1_confidence: Top1Confidence) -> None:
    inputs = make_inputs(2, 3, (40, 37), torch.float32)
    h = inputs.pop("h")
    laws.check_strided(lambda x: as_tensor(fast_top1_confidence(x, **inputs, eps=EPS)), h)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("h", torch.zeros(3, 40)),
        ("head", torch.zeros(37, 41)),
        ("head", torch.zeros(37, 40, dtype=torch.float64)),
        ("norm_weight", torch.zeros(39)),
    ],
)
def test_bad_inputs(fast_top1_confidence: Top1Confidence, name: str, bad: Tensor) -> None:
    inputs = {**make_inputs(1, 3, (40, 37), torch.float32), "eps": EPS}
    laws.check_refusal(fast_top1_confidence, inputs, name, bad)
