"""The fused losses against autograd's, in value and gradient, however they are cut into chunks."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kangaroo.train import loss
from kangaroo.train.config import LossConfig
from kangaroo.train.loss import vocabulary_loss

SOFT = LossConfig(soft=1.0)
MIXTURES = [
    {"soft": 1.0},
    {"kl": 1.0},
    {"hard": 1.0},
    {"tv": 1.0},
    {"soft": 0.5, "kl": 0.25, "hard": 2.0, "tv": 3.0},
]


def defined(
    draft: Tensor,
    target: Tensor,
    head: Tensor,
    weights: dict[str, float],
    own: Tensor | None = None,
) -> Tensor:
    """As the books have them."""
    p, q = (target @ head.T).softmax(-1), (draft @ (head if own is None else own).T).softmax(-1)
    losses = {
        "soft": -(p * q.log()).sum(),
        "kl": F.kl_div(q.log(), p, reduction="sum"),
        "hard": F.nll_loss(q.log(), p.argmax(-1), reduction="sum"),
        "tv": 0.5 * (p - q).abs().sum(),
    }
    return sum((weight * losses[name] for name, weight in weights.items()), torch.zeros(()))


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("weights", MIXTURES, ids=str)
def test_value_and_gradient(
    rows: int, weights: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "chunk_rows", lambda _head: rows)
    draft, target = torch.randn(2, 23, 16)
    head = torch.randn(50, 16)
    draft.requires_grad_()
    exact = draft.detach().double().requires_grad_()
    expected = defined(exact, target.double(), head.double(), weights)
    total = vocabulary_loss(draft, target, head, LossConfig(**weights))
    assert total.dtype == torch.float32
    (total * 0.5).backward()
    (expected * 0.5).backward()
    assert draft.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(draft.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


def test_kl_is_soft_less_a_constant() -> None:
    draft, target, head = torch.randn(9, 16), torch.randn(9, 16), torch.randn(50, 16)
    grads = []
    for weights in (SOFT, LossConfig(kl=1.0)):
        x = draft.clone().requires_grad_()
        vocabulary_loss(x, target, head, weights).backward()
        grads.append(x.grad)
    assert grads[0] is not None
    assert grads[1] is not None
    assert torch.equal(*grads)


@pytest.mark.parametrize("name", ["soft", "kl", "tv"])
def test_a_perfect_draft_has_the_least_loss(name: str) -> None:
    """Of `soft` that is the target's entropy; `tv` has a corner there, and so no gradient of 0."""
    states, head = torch.randn(9, 16), torch.randn(50, 16)
    draft = states.clone().requires_grad_()
    total = vocabulary_loss(draft, states, head, LossConfig(**{name: 1.0}))
    total.backward()
    entropy = torch.special.entr((states @ head.T).softmax(-1)).sum()
    least = entropy if name == "soft" else torch.zeros(())
    torch.testing.assert_close(total, least, rtol=1e-5, atol=1e-5)
    assert draft.grad is not None
    assert name == "tv" or draft.grad.abs().max() < 1e-5


def test_only_the_draft_learns() -> None:
    draft, target, head = (torch.randn(4, 8).requires_grad_() for _ in range(3))
    vocabulary_loss(draft, target, head, SOFT).backward()
    assert draft.grad is not None
    assert target.grad is None
    assert head.grad is None


def test_a_head_of_the_drafts_own_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "chunk_rows", lambda _head: 7)
    draft, target = torch.randn(2, 23, 16)
    own, head = torch.randn(2, 50, 16)
    weights = {"soft": 0.5, "tv": 2.0}
    exact = [x.double().requires_grad_() for x in (draft, own)]
    (defined(exact[0], target.double(), head.double(), weights, exact[1]) * 0.5).backward()
    sides = [x.requires_grad_() for x in (draft, own)]
    total = vocabulary_loss(draft, target, head, LossConfig(**weights), draft_head=own)
    (total * 0.5).backward()
    for side, expected in zip(sides, exact, strict=True):
        assert side.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(side.grad.double(), expected.grad, rtol=1e-4, atol=1e-5)


def test_a_bfloat16_head_gets_a_float32_gradient() -> None:
    draft, target, head = torch.randn(9, 16), torch.randn(9, 16), torch.randn(50, 16)
    grads = []
    for dtype in (torch.float32, torch.bfloat16):
        x = draft.clone().requires_grad_()
        vocabulary_loss(x, target.to(dtype), head.to(dtype), SOFT).backward()
        assert x.grad is not None
        grads.append(x.grad)
    assert grads[1].dtype == torch.float32
    torch.testing.assert_close(*grads, rtol=0.1, atol=0.1)
