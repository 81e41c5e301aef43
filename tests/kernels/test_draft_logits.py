"""draft_logits: every implementation against float64, beside top1_confidence, and the bitwise
laws.
"""

from __future__ import annotations

import pytest
import torch

from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.draft_logits import DraftLogits
from kangaroo_kernels.kernel_set import Backend, Target, load_impl
from kangaroo_kernels.testing import Budget
from tests.kernels import laws
from tests.kernels.heads import EPS, EXACT, QUANTIZED, Ranked, cpp_may_refuse
from tests.kernels.test_top1_confidence import make_inputs

SHAPES = [(40, 37), (193, 16), (192, 1000), (65, 130)]  # C, V


def check_budget(op: DraftLogits, dtype: torch.dtype, shape: tuple[int, int], kind: str) -> None:
    budget = Budget()
    for batch, num_nodes in [(1, 1), (1, 5), (3, 17)]:
        inputs = make_inputs(batch, num_nodes, shape, dtype, kind)
        head = inputs["head"]
        logits = op(**inputs, eps=EPS)
        assert logits.shape == (batch, num_nodes, head.num_ids)
        assert logits.dtype == torch.float32
        ranked = Ranked(**inputs)
        ids = slice(None) if head.token_ids is None else head.token_ids
        budget.add(logits, ranked.exact[..., ids], ranked.low[..., ids].float())
    budget.check()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.thorough
def test_error_budget(
    draft_logits: DraftLogits, dtype: torch.dtype, shape: tuple[int, int], kind: str
) -> None:
    check_budget(draft_logits, dtype, shape, kind)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_heads(draft_logits: DraftLogits, dtype: torch.dtype, kind: str) -> None:
    """Within the budget of the quantized weights' own logits; or refused, by name."""
    with cpp_may_refuse(draft_logits):
        check_budget(draft_logits, dtype, (193, 130), kind)


@pytest.mark.parametrize("kind", ["plain", "int8", "int8 ids"])
def test_the_largest_is_that_of_top1(draft_logits: DraftLogits, kind: str) -> None:
    """Of one backend: so what is drawn and what is chosen come from the same rows."""
    inputs = make_inputs(2, 3, (65, 300), kind=kind)
    backend = Backend(draft_logits.__module__.split(".")[-1].split("_")[0])
    top1 = load_impl("top1_confidence", backend, Target(inputs["h"].device, torch.float32, 64))
    logits, (tokens, _) = draft_logits(**inputs, eps=EPS), top1(**inputs, eps=EPS)
    best, ids = logits.argmax(-1), inputs["head"].token_ids
    assert tokens.equal(best if ids is None else ids[best].long())


@pytest.mark.parametrize("kind", ["plain", "ids", "int8"])
@pytest.mark.thorough
def test_row_invariance(draft_logits: DraftLogits, dtype: torch.dtype, kind: str) -> None:
    inputs = make_inputs(1, 100, (65, 130), dtype, kind)
    h = inputs.pop("h")
    laws.check_row_invariance(lambda x: draft_logits(x, **inputs, eps=EPS), h)


@pytest.mark.parametrize("num_nodes", [1, 5, 65])
@pytest.mark.thorough
def test_thread_invariance(draft_logits: DraftLogits, dtype: torch.dtype, num_nodes: int) -> None:
    inputs = make_inputs(1, num_nodes, (192, 1000), dtype)
    laws.check_thread_invariance(lambda: draft_logits(**inputs, eps=EPS))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("h", torch.zeros(3, 40)),
        ("head", DraftHead(torch.zeros(37, 41))),
        ("head", DraftHead(torch.zeros(37, 40, dtype=torch.int8))),
        ("head", DraftHead(torch.zeros(37, 40), scale=torch.ones(37))),
        ("norm_weight", torch.zeros(39)),
    ],
)
def test_bad_inputs(fast_draft_logits: DraftLogits, name: str, bad: object) -> None:
    inputs = {**make_inputs(1, 3, (40, 37)), "eps": EPS}
    laws.check_refusal(fast_draft_logits, inputs, name, bad, says=f"{name}")
