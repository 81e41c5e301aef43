"""top1_confidence: final norm, head, and what the drafter needs of the logits: the best token and
how sure it is.
"""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain, DraftHead


class Top1Confidence(Protocol):
    def __call__(
        self,
        h: Tensor,
        head: DraftHead,
        norm_weight: Tensor,
        eps: float,
        *,
        chain: DraftChain | None = None,
    ) -> tuple[Tensor, Tensor]:
        """argmax and maximum of softmax(rms_norm(h) W_head^T), logits in float32.

        Args:
            h:           [B, N, C]
            head:        whose logits, and of which tokens; the softmax is over these. A logit that
                is no number ranks last.
            norm_weight: [C]
            chain:       mutated: where it has not stopped, the token of the last of the N nodes is
                appended; it stops where that was not sure enough, or at its capacity.
        Returns:
            (token ids [B, N] int64, ties to the lowest id; probabilities [B, N] float32).
        """
        ...
