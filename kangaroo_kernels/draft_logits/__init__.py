"""draft_logits: final norm and head, for drafts that are drawn from a whole row."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.draft_head import DraftHead


class DraftLogits(Protocol):
    def __call__(self, h: Tensor, head: DraftHead, norm_weight: Tensor, eps: float) -> Tensor:
        """rms_norm(h) W_head^T of the tokens that may be drafted, unrounded.

        Args:
            h:           [B, N, C]
            head:        whose logits, and of which tokens
            norm_weight: [C]
        Returns:
            [B, N, R] float32, R tokens of the head: column r is that of `head.token_ids[r]`.
        """
        ...
