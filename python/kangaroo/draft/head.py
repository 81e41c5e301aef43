"""What a drafter reads of the target's head: all of it, a copy of a byte an element, or the rows
of a draft vocabulary. It costs drafts that are accepted, never a token: the target reads its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kangaroo_kernels import KernelSet, UnsupportedError
from kangaroo_kernels.draft_head import DraftHead, quantize

COPIES = {"int8": torch.int8, "float8": torch.float8_e4m3fn}
# Logit of a token that may not be drafted: at no temperature below a million has it a probability.
# Not -inf: where processors forbid all of the vocabulary, the row still is a distribution.
OUTSIDE = -1e9


def drafting_head(
    lm_head: Tensor, copy: str | None = None, token_ids: Tensor | None = None
) -> DraftHead:
    """The head of drafts for a target whose own is `lm_head` [V, C].

    Args:
        copy: "int8" or "float8", each row scaled; None: `lm_head` itself.
        token_ids: [R] int32, strictly increasing, the draft vocabulary (FR-Spec, arXiv 2502.14856);
            None: all tokens.

    Raises:
        ValueError: a copy that does not exist.
    """
    if copy is None:
        return DraftHead(lm_head, token_ids=token_ids)
    if copy not in COPIES:
        raise ValueError(f"draft_head: expected one of {', '.join(COPIES)}, got {copy!r}")
    return quantize(lm_head, COPIES[copy], token_ids)


def require_readable(head: DraftHead, kernels: KernelSet, like: Tensor) -> None:
    """Ask every op that drafts may need for one row of `head`; `like` [C] is a norm's weight.

    Raises:
        UnsupportedError: one of them cannot read it, by its own reason.
    """
    h = like.new_zeros(1, 1, len(like))
    try:
        kernels.top1_confidence(h, head, like, 1.0)
        kernels.topk_confidence(h, head, like, 1.0, 1)
        kernels.draft_logits(h, head, like, 1.0)
    except UnsupportedError as refusal:
        raise UnsupportedError(f"draft_head: {refusal}") from refusal


def bytes_per_step(head: DraftHead) -> int:
    """What a draft step reads of the head: rows that may be drafted, with scales and numbers."""
    rows = head.num_ids * head.weight.shape[1] * head.weight.itemsize
    scales = 0 if head.scale is None else head.num_ids * head.scale.itemsize
    return rows + scales + (0 if head.token_ids is None else head.token_ids.nbytes)


def describe(head: DraftHead) -> dict[str, Any]:
    """For JSON."""
    return {
        "dtype": str(head.weight.dtype).removeprefix("torch."),
        "num_tokens": head.num_ids,
        "bytes_per_step": bytes_per_step(head),
    }


def whole_rows(logits: Tensor, head: DraftHead) -> Tensor:
    """`logits` [B, N, R] of the head's tokens as rows of all V: [B, N, V]."""
    if head.token_ids is None:
        return logits
    rows = logits.new_full((*logits.shape[:2], len(head.weight)), OUTSIDE)
    rows[..., head.token_ids.long()] = logits
    return rows


def vocabulary_first(shares: Tensor, head: DraftHead) -> Tensor:
    """`shares` [N, V] of probability; in rows where a token of the head has one, -1 for all that
    are no tokens of the head: they rank behind those that cannot be either.
    """
    if head.token_ids is None:
        return shares
    ids = head.token_ids.long()
    outside = torch.ones_like(shares, dtype=torch.bool)
    outside[:, ids] = False
    return shares.masked_fill(outside & (shares[:, ids] > 0).any(-1, keepdim=True), -1.0)
