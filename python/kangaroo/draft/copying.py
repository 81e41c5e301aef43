"""Drafts that are copied out of the text itself, in front of another drafter's.

Code, answers about a document and edits of one repeat much of what stands there already. Where the
last tokens stood in the text before, what followed them then is the draft: it costs rows of
verification and no pass of a drafter (prompt lookup; with a drafter behind it as in SuffixDecoding,
arXiv 2411.04975, which lets the length of the match decide).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.costs import RoundCosts
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.pace import Pace
from kangaroo.draft.tree import DraftTree, pad
from kangaroo.engine.state import DecodeState, Request


class Repeats:
    """Where the last `size` tokens of one growing text have stood before."""

    def __init__(self, size: int):
        self.size = size
        self._ends: dict[tuple[int, ...], int] = {}  # of each run of `size` tokens, the latest
        self._num_read = 0

    def continuation(self, tokens: Sequence[int], count: int) -> list[int]:
        """`count` tokens that followed when the last ones stood there last; none where they never
        did.

        What is copied may reach into the copy, as in LZ77: a text that goes round is followed round
        after round.

        Args:
            tokens: the text, which begins with that of the last call.
        """
        for end in range(max(self._num_read, self.size), len(tokens)):
            self._ends[tuple(tokens[end - self.size : end])] = end
        self._num_read = len(tokens)
        start = self._ends.get(tuple(tokens[-self.size :]))
        if start is None:
            return []
        period = len(tokens) - start
        return [tokens[start + n % period] for n in range(count)]


class CopyingDrafter:
    """Copies where the text repeats itself, and asks `other` where it does not."""

    def __init__(self, other: KangarooDrafter):
        self.other, self.model, self.config = other, other.model, other.config
        self.pace = Pace(self.config, self.costs()) if self.config.adaptive else None

    def new_cache(self, batch: int, num_slots: int) -> SlotCache:
        """See Drafter."""
        return self.other.new_cache(batch, num_slots)

    def prefill(self, state: DecodeState, h: Tensor, h_deep: Tensor) -> None:
        """See Drafter."""
        self.other.prefill(state, h, h_deep)

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        """See Drafter; `max_depths` are of the other's drafts. Sequences that copy wait for those
        that do not.
        """
        copies = self.copies(state.requests)
        if not any(copies):
            return self.other.draft(state, max_depths)
        asked = [0 if copy else depth for copy, depth in zip(copies, max_depths, strict=True)]
        if any(asked):
            trees = self.other.draft(state, asked)
        else:
            trees = [DraftTree.root(request.tokens[-1]) for request in state.requests]
        for b, copy in enumerate(copies):
            if copy:
                trees[b] = DraftTree.chain([state.requests[b].tokens[-1], *copy])
        pad(trees)
        self.other.take(state, trees)
        return trees

    def verified(
        self,
        state: DecodeState,
        trees: list[DraftTree],
        h_deep: Tensor,
        successors: list[list[int]],
    ) -> None:
        """See Drafter."""
        self.other.verified(state, trees, h_deep, successors)

    def costs(self) -> RoundCosts:
        """See Drafter; copies alone cost no pass."""
        if self.other.adapter is None and not self.config.costs:
            device = self.model.weights.norm.device.type
            return RoundCosts.of_step(self.model.config, 0, device)
        return self.other.costs()

    def copies(self, requests: Sequence[Request]) -> list[list[int]]:
        """What each of `requests` drafts by itself, or []."""
        depth = self.config.lookup_depth
        most = depth if self.pace is None else self.pace.copies(requests)
        return [self.copy(request, min(most, request.num_left - 1)) for request in requests]

    def copy(self, request: Request, count: int) -> list[int]:
        """Tokens to try behind a sequence: so many, or none."""
        if not isinstance(request.memory, Repeats):
            request.memory = Repeats(self.config.lookup)
        return request.memory.continuation(request.tokens, count)
