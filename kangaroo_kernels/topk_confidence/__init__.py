"""topk_confidence: final norm, head, and the children that a tree's drafter may choose from."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.draft_head import DraftHead


class TopkConfidence(Protocol):
    def __call__(
        self, h: Tensor, head: DraftHead, norm_weight: Tensor, eps: float, k: int
    ) -> tuple[Tensor, Tensor]:
        """The k largest of softmax(rms_norm(h) W_head^T), logits in float32.

        Args:
            h:           [B, N, C]
            head:        whose logits, and of which tokens; the softmax is over these. A logit that
                is no number ranks last.
            norm_weight: [C]
            k:           1 to MAX_K, and at most the tokens of the head.
        Returns:
            (token ids [B, N, k] int64, the most probable first, ties to the lowest id;
             probabilities [B, N, k] float32).
        """
        ...
