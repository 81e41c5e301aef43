"""Prompt lookup: what followed the last tokens when they stood in the text before."""

from __future__ import annotations

from collections.abc import Sequence

from kangaroo.config import DraftConfig
from kangaroo.draft.tokens import TokenDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.llama import Llama


class LookupDrafter(TokenDrafter):
    """Drafts what transformers' prompt lookup does. No parameters, no model: `max_depth` alone
    limits a draft, as `prompt_lookup_num_tokens` does there; `confidence` has nothing to refuse.

    Args:
        max_matching_ngram_size: tokens that are looked for at most; fewer where those are nowhere.

    Raises:
        ValueError: an impossible size, or trees are wanted.
    """

    def __init__(self, model: Llama, config: DraftConfig, max_matching_ngram_size: int = 2):
        super().__init__(model, config)
        if max_matching_ngram_size < 1:
            raise ValueError(
                f"max_matching_ngram_size: expected at least 1, got {max_matching_ngram_size}"
            )
        self.max_matching_ngram_size = max_matching_ngram_size

    @property
    def step_parameters(self) -> int:
        """None."""
        return 0

    def propose(self, state: DecodeState, trees: list[DraftTree], max_depths: list[int]) -> None:
        """See TokenDrafter."""
        for request, tree, max_depth in zip(state.requests, trees, max_depths, strict=True):
            for token in continuation(request.tokens, max_depth, self.max_matching_ngram_size):
                tree.add(token, parent=len(tree) - 1)


def continuation(tokens: Sequence[int], num_tokens: int, max_ngram_size: int) -> Sequence[int]:
    """Up to `num_tokens` that follow where the longest end of `tokens` that has stood there before,
    of at most `max_ngram_size`, stood first.
    """
    for size in range(min(max_ngram_size, len(tokens) - 1), 0, -1):
        last, ngram = tokens[-1], tokens[-size:]
        for end in range(size, len(tokens)):
            if tokens[end - 1] == last and tokens[end - size : end] == ngram:
                return tokens[end : end + num_tokens]
    return ()
