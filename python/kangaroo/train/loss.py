"""Losses between the target's distribution and the draft's, head included."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kangaroo.train.config import LossConfig

# Logits of a chunk: few enough to stay in a CPU's last-level cache, enough to fill a GPU.
_CHUNK_LOGITS_CPU, _CHUNK_LOGITS_GPU = 1 << 22, 1 << 28


def chunk_rows(head: Tensor) -> int:
    """Rows of hidden states whose logits are made at once."""
    budget = _CHUNK_LOGITS_CPU if head.device.type == "cpu" else _CHUNK_LOGITS_GPU
    return max(16, budget // head.shape[0])


def logits_of(hidden: Tensor, head: Tensor) -> Tensor:
    """hidden [M, C], head [V, C] -> [M, V] float32; multiplied in the head's dtype."""
    return F.linear(hidden.to(head.dtype), head).float()


def vocabulary_loss(
    draft: Tensor,
    target: Tensor,
    head: Tensor,
    weights: LossConfig,
    *,
    draft_head: Tensor | None = None,
) -> Tensor:
    """Sum over rows of the losses that `weights` names, nats (`tv`: probability): float32 scalar.

    Row m of both sides stands for one slot, and both predict the token behind it. Only the draft's
    side gets a gradient; it is computed on the way forward, so that no logits are kept.

    Args:
        draft: [M, C], out of the adapter's final norm; target: [M, C], out of the target's.
        head: [V, C], the target's; draft_head: [V, C], what `draft` is read by if not by that.
    """
    own = head.detach() if draft_head is None else draft_head
    total: Tensor = _VocabularyLoss.apply(draft, own, target, head, weights)  # type: ignore[no-untyped-call]
    return total


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, draft: Tensor, own: Tensor, target: Tensor, head: Tensor, weights: LossConfig
    ) -> Tensor:
        total = torch.zeros((), device=draft.device)
        wanted, wanted_of_head, *_ = ctx.needs_input_grad
        grads, head_grad = [], torch.zeros_like(own) if wanted_of_head else None
        rows = chunk_rows(head)
        for d, t in zip(draft.split(rows), target.split(rows), strict=True):
            p = logits_of(t, head).softmax(-1)
            log_q = logits_of(d, own).log_softmax(-1)
            total += _value(p, log_q, weights)
            if wanted or wanted_of_head:
                slope = _slope(p, log_q, weights).to(own.dtype)
                grads.append((slope @ own).to(draft.dtype))
                if head_grad is not None:
                    head_grad.addmm_(slope.T, d.to(own.dtype))
        ctx.save_for_backward(torch.cat(grads) if grads else None, head_grad)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        grad, head_grad = ctx.saved_tensors
        of_head = None if head_grad is None else head_grad * upstream[0]
        return grad * upstream[0], of_head, None, None, None


def _value(p: Tensor, log_q: Tensor, weights: LossConfig) -> Tensor:
    """The weighted losses of rows p, log q [M, V], summed."""
    total = torch.zeros((), device=p.device)
    if cross := weights.soft + weights.kl:
        total -= cross * torch.linalg.vecdot(p, log_q).sum()
    if weights.kl:
        total -= weights.kl * torch.special.entr(p).sum()
    if weights.hard:
        total -= weights.hard * log_q.gather(-1, p.argmax(-1, keepdim=True)).sum()
    if weights.tv:
        total += weights.tv * (len(p) - torch.minimum(p, log_q.exp()).sum())
    return total


def _slope(p: Tensor, log_q: Tensor, weights: LossConfig) -> Tensor:
    """Its gradient with respect to the draft's logits [M, V]; overwrites log q.

    Cross-entropy to any target r has q - r. Total variation has q (g - sum q g), where g is its
    gradient with respect to q: -1 where q < p, else 0.
    """
    q = log_q.exp_()
    slope = (q - p).mul_(weights.soft + weights.kl)
    if weights.hard:
        best = p.argmax(-1, keepdim=True)
        slope.add_(q, alpha=weights.hard)
        slope.scatter_add_(-1, best, torch.full_like(best, -weights.hard, dtype=slope.dtype))
    if weights.tv:
        below = (q < p).float()
        share = torch.linalg.vecdot(q, below).unsqueeze(-1)
        slope.add_(q * (share - below), alpha=weights.tv)
    return slope
