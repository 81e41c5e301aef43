"""The fused loss against PyTorch's own, in value and gradient, however it is cut into chunks."""

import pytest
import torch
import torch.nn.functional as F

from kangaroo.train import loss
from kangaroo.train.loss import soft_cross_entropy


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_value_and_gradient(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "chunk_rows", lambda _head: rows)
    draft, target = torch.randn(2, 23, 16)
    head = torch.randn(50, 16)
    draft.requires_grad_()
    exact = draft.detach().double().requires_grad_()
    probabilities = (target.double() @ head.double().T).softmax(-1)
    expected = F.cross_entropy(exact @ head.double().T, probabilities, reduction="sum")
    total = soft_cross_entropy(draft, target, head)
    assert total.dtype == torch.float32
    (total * 0.5).backward()
    (expected * 0.5).backward()
    assert draft.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(draft.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


def test_a_perfect_draft_has_the_target_s_entropy_and_no_gradient() -> None:
    states, head = torch.randn(9, 16), torch.randn(50, 16)
    draft = states.clone().requires_grad_()
    total = soft_cross_entropy(draft, states, head)
    total.backward()
    p = (states @ head.T).softmax(-1)
    torch.testing.assert_close(total, torch.special.entr(p).sum())
    assert draft.grad is not None
    assert draft.grad.abs().max() < 1e-5


def test_only_the_draft_learns() -> None:
    draft, target, head = (torch.randn(4, 8).requires_grad_() for _ in range(3))
    soft_cross_entropy(draft, target, head).backward()
    assert draft.grad is not None
    assert target.grad is None
    assert head.grad is None


def test_a_bfloat16_head_gets_a_float32_gradient() -> None:
    draft, target, head = torch.randn(9, 16), torch.randn(9, 16), torch.randn(50, 16)
    grads = []
    for dtype in (torch.float32, torch.bfloat16):
        x = draft.clone().requires_grad_()
        soft_cross_entropy(x, target.to(dtype), head.to(dtype)).backward()
        assert x.grad is not None
        grads.append(x.grad)
    assert grads[1].dtype == torch.float32
    torch.testing.assert_close(*grads, rtol=0.1, atol=0.1)
