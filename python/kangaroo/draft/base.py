"""What the decode loop asks of any drafter."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState


class Drafter(Protocol):
    def new_cache(self, num_slots: int) -> SlotCache:
        """The drafter's own cache for one sequence; `DecodeState.adapter_kv`."""
        ...

    def prefill(self, state: DecodeState, h_deep: Tensor) -> None:
        """The prompt's next slots are in the target's caches; their last states are h_deep [B, N,
        C].
        """
        ...

    def draft(self, state: DecodeState, max_depth: int) -> DraftTree:
        """Grow a tree below the root, at most `max_depth` deep.

        Leaves every node's shallow keys and values in `state.shallow_kv` and its exit state in
        `state.exit_hidden`, in node order behind the committed slots: verification starts from
        there.
        """
        ...

    def verified(self, state: DecodeState, tree: DraftTree, h_deep: Tensor) -> None:
        """The nodes of the round's `tree`, N with the root, have last states h_deep [B, N, C];
        which of them are accepted is known next, when `state` is committed.
        """
        ...
