"""What the decode loop asks of any drafter."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.costs import RoundCosts
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState


class Drafter(Protocol):
    def new_cache(self, batch: int, num_slots: int) -> SlotCache:
        """The drafter's own cache for `batch` sequences, whatever it keeps there; it becomes
        `DecodeState.adapter_kv`.
        """
        ...

    def prefill(self, state: DecodeState, h: Tensor, h_deep: Tensor) -> None:
        """The next slots of the prompt, which is in `state.requests`, have exit states h and last
        states h_deep, each [B, N, C]; behind all of them stand tokens of the prompt.
        """
        ...

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        """Grow a tree below every root, at most so deep; all padded to equally many nodes.

        Leaves every node's shallow keys and values in `state.shallow_kv` and its exit state in
        `state.exit_states`, in node order: verification starts from there. Every tree has counted
        its `num_passes`, by which adaptive drafting goes.
        """
        ...

    def verified(
        self,
        state: DecodeState,
        trees: list[DraftTree],
        h_deep: Tensor,
        successors: list[list[int]],
    ) -> None:
        """The nodes of the round's `trees`, N with the root, have last states h_deep [B, N, C].

        Args:
            successors: of every tree, the token behind each node that will be committed, which
                `state` is next; of its other nodes any token.
        """
        ...

    def costs(self) -> RoundCosts:
        """What its drafts cost; asked where drafting is adaptive."""
        ...
