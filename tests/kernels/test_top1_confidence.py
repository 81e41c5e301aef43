"""top1_confidence: every implementation against float64, the tie rule, chains that grow, and the
bitwise laws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo_kernels import testing
from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.top1_confidence import Top1Confidence
from tests.kernels import laws
from tests.kernels.heads import EPS, EXACT, QUANTIZED, Ranked, cpp_may_refuse, make_head

SHAPES = [(40, 37), (193, 3), (192, 4096), (65, 130), (1, 1)]  # C, V
# B, N; the last so that the largest error of so few numbers is not luck
BATCHES = [(1, 1), (1, 2), (1, 3), (1, 5), (1, 16), (1, 17), (1, 65), (2, 3), (2, 17), (4, 100)]


def make_inputs(
    batch: int,
    num_nodes: int,
    shape: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    kind: str = "plain",
) -> dict[str, Any]:
    width, vocab = shape
    return {
        "h": torch.randn(batch, num_nodes, width).to(dtype),
        "head": make_head(kind, vocab, width, dtype),
        "norm_weight": testing.random_norm_weight(width, dtype),
    }


def as_tensor(answer: tuple[Tensor, Tensor]) -> Tensor:
    """Token ids and confidences [B, N] as one tensor [B, N, 2] of the same information."""
    return torch.stack([t.double() for t in answer], dim=-1)


def check_budget(
    op: Top1Confidence, dtype: torch.dtype, shape: tuple[int, int], kind: str, batches: Any
) -> None:
    budget = testing.Budget()
    for batch, num_nodes in batches:
        inputs = make_inputs(batch, num_nodes, shape, dtype, kind)
        tokens, confidence = op(**inputs, eps=EPS)
        assert tokens.shape == confidence.shape == (batch, num_nodes)
        assert (tokens.dtype, confidence.dtype) == (torch.int64, torch.float32)
        ranked = Ranked(**inputs)
        ranked.check_tokens(tokens[..., None])
        low = ranked.low.softmax(-1).amax(-1).float()
        budget.add(confidence, ranked.exact.softmax(-1).amax(-1), low)
    budget.check()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.thorough
def test_error_budget(
    top1_confidence: Top1Confidence, dtype: torch.dtype, shape: tuple[int, int], kind: str
) -> None:
    check_budget(top1_confidence, dtype, shape, kind, BATCHES)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_heads(top1_confidence: Top1Confidence, dtype: torch.dtype, kind: str) -> None:
    """Within the budget of the quantized weights' own logits; or refused, by name."""
    with cpp_may_refuse(top1_confidence):
        check_budget(top1_confidence, dtype, (193, 130), kind, [(1, 3), (3, 17)])


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
    h, weight, norm = (t.to(dtype) for t in (signs.expand(2, 3, 16), head, torch.ones(16)))
    tokens, _ = top1_confidence(h.contiguous(), DraftHead(weight), norm, 0.0)
    assert tokens.tolist() == [[min(best)] * 3] * 2


def test_large_logits_do_not_overflow(top1_confidence: Top1Confidence) -> None:
    weight = torch.zeros(50, 40)
    weight[11] = 1000.0
    for sign, token, expected in [(1.0, 11, 1.0), (-1.0, 0, 1 / 49)]:
        h = torch.full((1, 1, 40), sign)
        tokens, confidence = top1_confidence(h, DraftHead(weight), torch.ones(40), EPS)
        assert tokens.item() == token
        # Through a logsumexp of log 49, whose half ulp is 1.2e-7, and an exponential of it.
        assert confidence.item() == pytest.approx(expected, rel=5e-7)


@dataclass
class Drafting:
    """Chains of capacity 4, and a head that is as sure as `confidence` of token 1."""

    chain: DraftChain
    args: tuple[Any, ...]


def drafting(threshold: list[float], confidence: float) -> Drafting:
    batch = len(threshold)
    ids = torch.full((batch, 4), -1)
    ids[:, 0] = torch.arange(batch) + 50
    chain = DraftChain(
        tokens=ids,
        positions=torch.where(ids < 0, -1, 10 * ids).int(),
        num_nodes=torch.ones(batch, dtype=torch.int32),
        stopped=torch.zeros(batch, dtype=torch.int32),
        threshold=torch.tensor(threshold),
    )
    # RMSNorm makes (1, -1) of every last row; three tokens, the others 0.
    logit = torch.logit(torch.tensor(confidence)) + torch.tensor(2.0).log()
    weight = torch.zeros(3, 2)
    weight[1] = torch.tensor([0.5, -0.5]) * logit
    h = torch.tensor([[9.0, 9.0], [3.0, -3.0]]).expand(batch, 2, 2).contiguous()
    return Drafting(chain, (h, DraftHead(weight), torch.ones(2), 0.0))


def test_chain_grows_until_it_is_unsure(top1_confidence: Top1Confidence) -> None:
    """The token that was not sure enough is kept; what would follow it is not."""
    d = drafting([0.5, 0.7, 0.0], confidence=0.6)
    for _ in range(2):
        tokens, _ = top1_confidence(*d.args, chain=d.chain)
        assert tokens[:, 1].tolist() == [1, 1, 1]  # of the last node; the first is another
    assert d.chain.tokens.tolist() == [[50, 1, 1, -1], [51, 1, -1, -1], [52, 1, 1, -1]]
    assert d.chain.positions.tolist() == [
        [500, 501, 502, -1],
        [510, 511, -1, -1],
        [520, 521, 522, -1],
    ]
    assert d.chain.num_nodes.tolist() == [3, 2, 3]
    assert d.chain.stopped.tolist() == [0, 1, 0]


def test_chain_stops_at_its_capacity(top1_confidence: Top1Confidence) -> None:
    d = drafting([0.5], confidence=0.9)
    for num_nodes, stopped in [(2, 0), (3, 0), (4, 1), (4, 1)]:  # what was appended last is kept
        top1_confidence(*d.args, chain=d.chain)
        assert (d.chain.num_nodes.item(), d.chain.stopped.item()) == (num_nodes, stopped)
    assert d.chain.tokens.tolist() == [[50, 1, 1, 1]]
    for forced, stopped in [(0, 0), (4, 1), (9, 1)]:  # no node to stand behind, or no room
        chain = d.chain._replace(
            num_nodes=torch.tensor([forced]).int(), stopped=torch.zeros(1).int()
        )
        before = [t.clone() for t in chain._replace(stopped=torch.tensor([stopped]).int())]
        top1_confidence(*d.args, chain=chain)
        for left, was in zip(chain, before, strict=True):
            testing.assert_same_bits(left, was)


def test_a_confidence_that_is_no_number_stops(top1_confidence: Top1Confidence) -> None:
    d = drafting([0.5], confidence=0.9)
    d.args[0][:] = float("nan")
    top1_confidence(*d.args, chain=d.chain)
    assert d.chain.stopped.item() == 1
    assert 0 <= d.chain.tokens[0, 1].item() < 3


@pytest.mark.parametrize("shape", [(40, 37), (193, 3), (192, 1000), (65, 130)])
@pytest.mark.thorough
def test_row_invariance(
    top1_confidence: Top1Confidence, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    inputs = make_inputs(1, 100, shape, dtype)
    h = inputs.pop("h")
    laws.check_row_invariance(lambda x: as_tensor(top1_confidence(x, **inputs, eps=EPS)), h)


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


BAD_HEADS = [
    ("head.weight", DraftHead(torch.zeros(37, 41))),
    ("head.weight", DraftHead(torch.zeros(37, 40, dtype=torch.float64))),
    ("head.token_ids", DraftHead(torch.zeros(37, 40), token_ids=torch.arange(37))),
    ("head.token_ids", DraftHead(torch.zeros(37, 40), token_ids=torch.tensor([3, 37]).int())),
    ("head.token_ids", DraftHead(torch.zeros(37, 40), token_ids=torch.tensor([3, 3]).int())),
]


@pytest.mark.parametrize(("name", "head"), BAD_HEADS)
def test_bad_heads(fast_top1_confidence: Top1Confidence, name: str, head: DraftHead) -> None:
    laws.needs_values_on_the_host()
    inputs = {**make_inputs(1, 3, (40, 37)), "eps": EPS}
    laws.check_refusal(fast_top1_confidence, inputs, "head", head, says=name)


@pytest.mark.parametrize(
    ("name", "bad"), [("h", torch.zeros(3, 40)), ("norm_weight", torch.zeros(39))]
)
def test_bad_inputs(fast_top1_confidence: Top1Confidence, name: str, bad: Tensor) -> None:
    inputs = {**make_inputs(1, 3, (40, 37)), "eps": EPS}
    laws.check_refusal(fast_top1_confidence, inputs, name, bad)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("tokens", torch.zeros(1, 4)),
        ("positions", torch.zeros(1, 3, dtype=torch.int32)),
        ("num_nodes", torch.zeros(2, dtype=torch.int32)),
        ("stopped", torch.zeros(1, dtype=torch.int64)),
        ("threshold", torch.zeros(1, dtype=torch.float64)),
    ],
)
def test_bad_chains(fast_top1_confidence: Top1Confidence, name: str, bad: Tensor) -> None:
    d = drafting([0.5], confidence=0.9)
    inputs = dict(zip(("h", "head", "norm_weight", "eps"), d.args, strict=True))
    chain = d.chain._replace(**{name: bad})
    laws.check_refusal(
        fast_top1_confidence, {**inputs, "chain": d.chain}, "chain", chain, says=f"chain.{name}"
    )
