"""Soft cross-entropy against the target's distribution (paper, section 3.2), head included."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits of a chunk: few enough to stay in a CPU's last-level cache, enough to fill a GPU.
_CHUNK_LOGITS_CPU, _CHUNK_LOGITS_GPU = 1 << 22, 1 << 28


def chunk_rows(head: Tensor) -> int:
    """Rows of hidden states whose logits are made at once."""
    budget = _CHUNK_LOGITS_CPU if head.device.type == "cpu" else _CHUNK_LOGITS_GPU
    return max(16, budget // head.shape[0])


def logits_of(hidden: Tensor, head: Tensor) -> Tensor:
    """hidden [M, C], head [V, C] -> [M, V] float32; multiplied in the head's dtype."""
    return F.linear(hidden.to(head.dtype), head).float()


def soft_cross_entropy(draft: Tensor, target: Tensor, head: Tensor) -> Tensor:
    """-sum over rows m and tokens n of p_target(n | m) log p_draft(n | m), nats: float32 scalar.

    Row m of both sides stands for one slot, and both predict the token behind it. Only `draft` gets
    a gradient; it is computed on the way forward, so that no logits are kept.

    Args:
        draft: [M, C], out of the adapter's final norm; target: [M, C], out of the target's.
        head: [V, C], the target's.
    """
    total: Tensor = _SoftCrossEntropy.apply(draft, target, head)  # type: ignore[no-untyped-call]
    return total


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, draft: Tensor, target: Tensor, head: Tensor) -> Tensor:
        total = torch.zeros((), device=draft.device)
        grads = []
        rows = chunk_rows(head)
        for d, t in zip(draft.split(rows), target.split(rows), strict=True):
            p = logits_of(t, head).softmax(-1)
            log_q = logits_of(d, head).log_softmax(-1)
            total -= torch.linalg.vecdot(p, log_q).sum()
            if ctx.needs_input_grad[0]:
                slope = log_q.exp_().sub_(p)  # with respect to the draft's logits
                grads.append((slope.to(head.dtype) @ head).to(draft.dtype))
        if grads:
            ctx.save_for_backward(torch.cat(grads))
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * upstream[0], None, None
