"""draw_tokens: rows of logits draw tokens, by numbers that belong to seed, place and token."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draws import Draws


class DrawTokens(Protocol):
    def __call__(
        self,
        logits: Tensor,
        draws: Draws,
        positions: Tensor,
        k: int = 1,
        *,
        token_ids: Tensor | None = None,
        chain: DraftChain | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k best of a race between the tokens that a row keeps; see :class:`Draw`.

        Args:
            logits:    [B, N, R] float32.
            positions: [B, N] int32, of the nodes: what is drawn is for the position behind.
            k:         1 to MAX_K, and at most R.
            token_ids: [R] int32, strictly increasing: tokens of the columns; None: 0 to R - 1.
            chain:     mutated, as by top1_confidence: the token of the last of the N nodes joins
                it, with its share for a probability; of a row without finite logits token 0.
        Returns:
            (token ids [B, N, k] int64, the best first, ties to the lowest id; -1 where the largest
             logit of the row is not finite, NaN being the largest;
             shares [B, N, k] float32: exp(score) in the sum over all that are kept, 0 of the
             others, which come last).
        """
