"""Drafters that say tokens and share nothing with the target while they do.

The nodes of a round go through the target's layers [0, E) in one pass at its end, as they would if
verification began at the first layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import MAX_TREE_NODES, DraftConfig
from kangaroo.costs import RoundCosts
from kangaroo.draft.chains import any_sampled, drawn, grow
from kangaroo.draft.head import drafting_head
from kangaroo.draft.shallow import new_nodes_through_shallow_layers
from kangaroo.draft.tree import DraftTree, pad
from kangaroo.engine.state import DecodeState
from kangaroo.models.llama import Llama


class TokenDrafter:
    """Drafts chains of tokens. It has no rows of its own.

    Raises:
        ValueError: trees are wanted.
    """

    def __init__(self, model: Llama, config: DraftConfig):
        if config.draft == "tree":
            raise ValueError(f"draft: {type(self).__name__} drafts chains alone, got 'tree'")
        self.model, self.config = model, config

    @property
    def step_parameters(self) -> int:
        """What a draft step reads."""
        raise NotImplementedError

    def propose(self, state: DecodeState, trees: list[DraftTree], max_depths: list[int]) -> None:
        """Grow a chain, at most so deep, below every root."""
        raise NotImplementedError

    def new_cache(self, batch: int, num_slots: int) -> SlotCache:
        """See Drafter; no rows."""
        like = self.model.weights.norm
        return SlotCache.without_rows(batch, num_slots + MAX_TREE_NODES, like)

    def prefill(self, state: DecodeState, h: Tensor, h_deep: Tensor) -> None:
        """See Drafter."""

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        """See Drafter."""
        trees = [DraftTree.root(request.tokens[-1]) for request in state.requests]
        self.propose(state, trees, max_depths)
        pad(trees)
        new_nodes_through_shallow_layers(self.model, self.config.exit_layer, state, trees)
        return trees

    def verified(
        self,
        state: DecodeState,
        trees: list[DraftTree],
        h_deep: Tensor,
        successors: list[list[int]],
    ) -> None:
        """See Drafter."""

    def costs(self) -> RoundCosts:
        """See Drafter."""
        if self.config.costs:
            return RoundCosts(*self.config.costs)
        return self.predicted_costs(self.model.weights.norm.device.type)

    def predicted_costs(self, device_type: str) -> RoundCosts:
        """By the weights that are read."""
        return RoundCosts.of_step(self.model.config, self.step_parameters, device_type)


class SteppingDrafter(TokenDrafter):
    """Drafts token by token, by the final norm and head of `speaker`; stops behind one of which it
    was not sure enough. Tokens of sequences that are sampled are drawn.
    """

    def __init__(self, model: Llama, config: DraftConfig, speaker: Llama):
        super().__init__(model, config)
        self.speaker, self.head = speaker, drafting_head(speaker.weights.lm_head)

    def states(self, state: DecodeState, trees: list[DraftTree]) -> Tensor:
        """The last states [B, 1, C] of the newest nodes, those of the largest of the `trees`."""
        raise NotImplementedError

    def confidences(self, state: DecodeState) -> Sequence[float]:
        """[B]: nothing is drafted behind a token of which it was less sure."""
        return [self.config.confidence] * len(state.requests)

    def propose(self, state: DecodeState, trees: list[DraftTree], max_depths: list[int]) -> None:
        """See TokenDrafter."""
        least = self.confidences(state)
        growing = [b for b, max_depth in enumerate(max_depths) if max_depth > 0]
        while growing:
            found = self._next_tokens(state, trees, growing)
            growing = grow(trees, growing, found, least, max_depths)

    def _next_tokens(
        self, state: DecodeState, trees: list[DraftTree], growing: list[int]
    ) -> tuple[Tensor, Tensor]:
        speaker, h = self.speaker, self.states(state, trees)
        if any_sampled(state):
            logits = speaker.logits(h)[:, 0]
            return drawn(speaker.kernels, state, trees, growing, logits)
        eps = speaker.config.rms_norm_eps
        return speaker.kernels.top1_confidence(h, self.head, speaker.weights.norm, eps)
