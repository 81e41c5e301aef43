"""top1_confidence: final norm, head, and what the drafter needs of the logits: the best token and
how sure it is.
"""

from typing import Protocol

from torch import Tensor


class Top1Confidence(Protocol):
    def __call__(
        self, h: Tensor, head: Tensor, norm_weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """argmax and maximum of softmax(rms_norm(h) W_head^T), logits in float32.

        Args:
            h:           [B, N, C]
            head:        [V, C]
            norm_weight: [C]
        Returns:
            (token ids [B, N] int64, ties to the lowest id; probabilities [B, N] float32).
        """
        ...
