"""topk_confidence: every implementation against float64, the tie rule, and the bitwise laws."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from kangaroo_kernels import testing
from kangaroo_kernels.draft_head import MAX_K, DraftHead
from kangaroo_kernels.topk_confidence import TopkConfidence
from tests.kernels import laws
from tests.kernels.heads import EPS, EXACT, QUANTIZED, Ranked, cpp_may_refuse
from tests.kernels.test_top1_confidence import make_inputs

SHAPES = [(40, 37), (193, 16), (192, 4096), (65, 130)]  # C, V
BATCHES = [(1, 1), (1, 2), (1, 5), (1, 17), (2, 17), (4, 50)]  # B, N


def as_tensor(answer: tuple[Tensor, Tensor]) -> Tensor:
    """Token ids and confidences [B, N, k] as one tensor [B, N, 2 k] of the same information."""
    return torch.cat([t.double() for t in answer], dim=-1)


def check_budget(
    op: TopkConfidence,
    dtype: torch.dtype,
    shape: tuple[int, int],
    kind: str,
    k: int,
    *,
    batches: Sequence[tuple[int, int]] = BATCHES,
) -> None:
    budget = testing.Budget()
    for batch, num_nodes in batches:
        inputs = make_inputs(batch, num_nodes, shape, dtype, kind)
        width = min(k, inputs["head"].num_ids)
        tokens, confidence = op(**inputs, eps=EPS, k=width)
        assert tokens.shape == confidence.shape == (batch, num_nodes, width)
        assert (tokens.dtype, confidence.dtype) == (torch.int64, torch.float32)
        assert (confidence.diff() <= 0).all()
        ranked = Ranked(**inputs)
        ranked.check_tokens(tokens)
        exact, low = (x.softmax(-1).topk(width).values for x in (ranked.exact, ranked.low))
        budget.add(confidence, exact, low.float())
    budget.check()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("k", [2, 10, MAX_K])
@pytest.mark.thorough
def test_error_budget(
    topk_confidence: TopkConfidence, dtype: torch.dtype, shape: tuple[int, int], kind: str, k: int
) -> None:
    check_budget(topk_confidence, dtype, shape, kind, k)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_heads(topk_confidence: TopkConfidence, dtype: torch.dtype, kind: str) -> None:
    """Within the budget of the quantized weights' own logits; or refused, by name."""
    with cpp_may_refuse(topk_confidence):
        check_budget(topk_confidence, dtype, (40, 130), kind, 4, batches=[(1, 3), (3, 17)])


@pytest.mark.parametrize("ids", [None, [5, 6, 63, 64, 129, 200, 239, 240, 241, 999]])
def test_ties_go_to_the_lowest_ids(
    topk_confidence: TopkConfidence, dtype: torch.dtype, ids: list[int] | None
) -> None:
    """Small integers, so that every order of summation gives exactly the same logits."""
    levels = [(9, [241, 64]), (8, [999, 129, 6, 63]), (4, [5])]
    weight = torch.zeros(1000, 16)
    for logit, tokens in levels:
        weight[tokens] = (torch.arange(16) < logit).float()
    subset = None if ids is None else torch.tensor(ids).int()
    head = DraftHead(weight.to(dtype), token_ids=subset)
    h, norm = torch.ones(2, 3, 16).to(dtype), torch.ones(16).to(dtype)
    tokens, confidence = topk_confidence(h, head, norm, 0.0, 9)
    rest = [0, 1] if ids is None else [200, 239]
    assert tokens.tolist() == [[[64, 241, 6, 63, 129, 999, 5, *rest]] * 3] * 2
    assert (confidence[..., :-1].diff() == 0)[0, 0].tolist() == [
        True,
        False,
        True,
        True,
        True,
        False,
        False,
    ]


def test_what_is_no_number_ranks_last(topk_confidence: TopkConfidence, dtype: torch.dtype) -> None:
    """Every token once, those without a logit behind all others and by their ids."""
    weight = torch.zeros(70, 4)
    weight[:, 0] = torch.arange(70)
    weight[[3, 64], 0] = torch.nan
    weight[[5, 66], 0] = -torch.inf
    h, norm = torch.ones(1, 1, 4).to(dtype), torch.ones(4).to(dtype)
    few = torch.tensor([3, 5, 7, 64, 66, 69]).int()
    head = DraftHead(weight.to(dtype), token_ids=few)
    tokens, confidence = topk_confidence(h, head, norm, 0.0, 6)
    assert tokens[0, 0].tolist() == [69, 7, 3, 5, 64, 66]
    assert confidence[0, 0, 2:].tolist() == [0, 0, 0, 0]


def test_an_empty_vocabulary_is_refused(fast_topk_confidence: TopkConfidence) -> None:
    inputs = {**make_inputs(1, 3, (40, 37)), "eps": EPS, "k": 1}
    nothing = inputs["head"]._replace(token_ids=torch.zeros(0, dtype=torch.int32))
    laws.check_refusal(fast_topk_confidence, inputs, "head", nothing, says="k")


def test_best_is_that_of_top1(topk_confidence: TopkConfidence, dtype: torch.dtype) -> None:
    """The best of k has the bits of the only one."""
    inputs = make_inputs(2, 3, (65, 300), dtype)
    ten = topk_confidence(**inputs, eps=EPS, k=10)
    one = topk_confidence(**inputs, eps=EPS, k=1)
    for many, single in zip(ten, one, strict=True):
        testing.assert_same_bits(many[..., :1], single)


@pytest.mark.parametrize("shape", [(40, 37), (192, 1000)])
@pytest.mark.thorough
def test_row_invariance(
    topk_confidence: TopkConfidence, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    inputs = make_inputs(1, 100, shape, dtype, "ids")
    h = inputs.pop("h")
    laws.check_row_invariance(lambda x: as_tensor(topk_confidence(x, **inputs, eps=EPS, k=7)), h)


@pytest.mark.parametrize("num_nodes", [1, 5, 65])
@pytest.mark.thorough
def test_thread_invariance(
    topk_confidence: TopkConfidence, dtype: torch.dtype, num_nodes: int
) -> None:
    inputs = make_inputs(1, num_nodes, (192, 1000), dtype)
    laws.check_thread_invariance(lambda: as_tensor(topk_confidence(**inputs, eps=EPS, k=10)))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("h", torch.zeros(3, 40)),
        ("head", DraftHead(torch.zeros(37, 41))),
        ("head", DraftHead(torch.zeros(37, 40), token_ids=torch.tensor([1, 2]).int())),
        ("norm_weight", torch.zeros(39)),
        ("k", 0),
        ("k", MAX_K + 1),
    ],
)
def test_bad_inputs(fast_topk_confidence: TopkConfidence, name: str, bad: object) -> None:
    laws.needs_values_on_the_host()
    inputs = {**make_inputs(1, 3, (40, 37)), "eps": EPS, "k": 3}
    says = {"head": "head.weight|k"}.get(name)
    laws.check_refusal(fast_topk_confidence, inputs, name, bad, says=says)
