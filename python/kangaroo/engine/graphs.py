"""The decode loop where the device runs whole rounds: launched ahead, read from a ring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import is_
from threading import Lock

import torch

from kangaroo.config import MAX_TREE_NODES
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.copying import CopyingDrafter
from kangaroo.draft.device_chains import DeviceChainDrafter
from kangaroo.draft.device_trees import DeviceTreeDrafter
from kangaroo.draft.fixed_trees import FixedTreeDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.engine.chain_rounds import ChainRounds
from kangaroo.engine.decode import Decoder, Round, not_finite
from kangaroo.engine.device_round import (
    DeviceRounds,
    Outcome,
    Pieces,
    Runtime,
    Shape,
    num_nodes_of,
)
from kangaroo.engine.state import DecodeState, PastKeyValues, Request
from kangaroo.engine.stopping import until
from kangaroo.engine.tree_rounds import FixedTreeRounds, GrownTreeRounds
from kangaroo.sampling.sampler import by_kernels

MAX_EOS = 16  # what a round takes
AHEAD = 2  # rounds: while one is read and kept, the next one runs
# Slots: caches that calls of generate keep have room for a multiple of so many, or for the target's
# whole context. A longer text than before seldom needs others, and graphs that write to them.
ROOM = 1024
MOST_ROWS = 64  # of a round, for the sake of copies

NewRounds = Callable[[DecodeState, Shape], DeviceRounds]


def device_rounds(drafter: KangarooDrafter, runtime: Callable[[Pieces], Runtime]) -> NewRounds:
    """Rounds of chains or of trees, as `drafter` drafts."""
    parts = drafter.model, drafter.adapter, drafter.config

    def rounds(state: DecodeState, shape: Shape) -> DeviceRounds:
        if not isinstance(drafter, BranchingDrafter):
            return ChainRounds(state, DeviceChainDrafter(*parts, head=drafter.head), runtime, shape)
        if drafter.config.tree_widths:
            fixed = FixedTreeDrafter(*parts, head=drafter.head)
            return FixedTreeRounds(state, fixed, runtime, shape)
        return GrownTreeRounds(state, DeviceTreeDrafter(*parts, head=drafter.head), runtime, shape)

    return rounds


class GraphDecoder(Decoder):
    """Decoder whose rounds are single launches. Between calls of generate it keeps
    what it has captured, and the caches; a call beside another has its own. A `Batch` has one for
    itself.

    What the device cannot decide alone, scores that a sampler shapes, and the first round behind a
    prompt of one token go as in Decoder. Rounds are launched ahead where a sequence is alone, ends
    by what the device knows, keeps no logits, and leaves nothing behind for a later call. Many
    sequences copy less than `lookup_depth` says: no more than their drafts have nodes, or together
    MOST_ROWS.

    Args:
        drafter: of the rounds that the host runs.
        runtime: runs the others.
        keep_logits, keep_scores: see Decoder.
    """

    drafter: KangarooDrafter | CopyingDrafter

    def __init__(
        self,
        drafter: KangarooDrafter | CopyingDrafter,
        runtime: Callable[[Pieces], Runtime],
        **kept: bool,
    ):
        super().__init__(drafter.model, drafter, drafter.config, **kept)
        own = drafter.other if isinstance(drafter, CopyingDrafter) else drafter
        self._new_rounds = device_rounds(own, runtime)
        self.runtime, self._free = runtime, Lock()
        self._captured: dict[Shape, DeviceRounds] = {}
        self._live: DeviceRounds | None = None
        self._requests: list[Request] = []
        self._spare: DecodeState | None = None
        self._ahead, self._steps_back = 1, False

    @property
    def busy(self) -> bool:
        """A call of generate is decoding by it."""
        return self._free.locked()

    @property
    def kept(self) -> dict[str, bool]:
        """The options that say what rounds carry."""
        return {"keep_logits": self.keep_logits, "keep_scores": self.keep_scores}

    @torch.inference_mode()
    def generate(self, request: Request, past: PastKeyValues | None = None) -> Iterator[Round]:
        """See Decoder."""
        if not self._free.acquire(blocking=False):
            yield from GraphDecoder(self.drafter, self.runtime, **self.kept).generate(request, past)
            return
        waits = past is not None or request.criteria or any(self.kept.values())
        self._ahead = 1 if waits else AHEAD
        try:
            yield from super().generate(request, past)
        finally:
            if self._live is not None:
                self._live.drain()
                self._spare = self._live.state if past is None else None
            self._live, self._ahead = None, 1
            self._free.release()

    def new_state(self, batch: int, num_slots: int) -> DecodeState:
        """See Decoder; the caches of the last call, where they are large enough."""
        spare, self._spare = self._spare, None
        if spare is None or batch > 1 or spare.shallow_kv.num_slots < num_slots + MAX_TREE_NODES:
            if self.busy:
                num_slots = min(-(-num_slots // ROOM) * ROOM, self.model.config.max_seq_len)
            return super().new_state(batch, num_slots)
        spare.requests.clear()
        spare.unwritten = []
        return spare

    def round(self, state: DecodeState) -> list[Round]:
        """See Decoder."""
        if not self._launches(state):
            self._steps_back = False
            return super().round(state)
        limits = self._limits(state)
        rounds = self._rounds(state, *limits)
        # Those that were launched with other limits are read before any is with these.
        same = (rounds.shape.depth, rounds.shape.copied) == limits
        outcome, seconds = rounds.next(ahead=self._ahead if same else 1)
        try:
            kept = self._keep(rounds, outcome, seconds / len(state.requests))
        except BaseException:
            self._step_back(state)
            raise
        if self.pace is not None:
            num_new = sum(len(r.tokens) for r in kept)
            self.pace.book(state.requests, outcome.num_steps, rounds.num_nodes, num_new)
        return kept

    def _launches(self, state: DecodeState) -> bool:
        """The device can run rounds of these sequences: it knows all that ends them."""
        ends = {frozenset(request.eos_ids) for request in state.requests}
        known = len(ends) == 1 and all(len(ids) <= MAX_EOS for ids in ends)
        rows = all(by_kernels(r.sampler) and r.prefix_len > 0 for r in state.requests)
        shaped = self.keep_scores and any(r.sampler for r in state.requests)
        return known and rows and not shaped and not self._steps_back

    def _limits(self, state: DecodeState) -> tuple[int, int]:
        """How deep the next round drafts, and how many tokens it copies, at most. A captured round
        verifies as many rows whatever it finds: where copies cannot be borne beside drafts as deep
        as they may be, drafts are less deep; beside none at all, nothing is copied.
        """
        depth, config, requests = self.depth(state), self.config, state.requests
        if not config.lookup:
            return depth, 0
        room = max(num_nodes_of(config, depth, 0), MOST_ROWS // len(requests)) - 1
        copied = min(config.lookup_depth, room)
        for less in range(depth, min(depth, 1) - 1, -1):
            num_nodes = num_nodes_of(config, less, copied)
            if self.pace is None or self.pace.bears(requests, less, num_nodes):
                return less, copied
        return depth, 0

    def _rounds(self, state: DecodeState, depth: int, copied: int) -> DeviceRounds:
        """Of the sequences of `state`; captured at most once for as many."""
        live, requests = self._live, state.requests
        same = len(requests) == len(self._requests) and all(map(is_, requests, self._requests))
        if live is not None and live.state is state and same:
            if (live.shape.depth, live.shape.copied) == (depth, copied) or live.runtime.unread:
                return live
        drawn = any(request.sampler for request in requests)
        ends = tuple(sorted(requests[0].eos_ids))
        shape = Shape(len(requests), depth, ends, self._ahead, drawn, copied)
        if any(rounds.state is not state for rounds in self._captured.values()):
            self._captured.clear()
        if shape not in self._captured:
            self._captured[shape] = self._new_rounds(state, shape)
        self._live, self._requests = self._captured[shape], list(requests)
        self._live.begin()
        return self._live

    def _keep(self, live: DeviceRounds, outcome: Outcome, seconds: float) -> list[Round]:
        """Of every sequence, what of a round is its own; the host's lengths follow the device's."""
        state, kept = live.state, []
        device = state.exit_states.device
        for b, (request, new) in enumerate(zip(state.requests, outcome.tokens, strict=True)):
            finite = [token for token in new if token >= 0]
            kept.append(until(request.tokens, finite, request.eos_ids, request.criteria, device))
            if len(finite) < len(new) and not kept[-1][1]:
                raise not_finite(len(request.tokens) + len(finite), b)
        rounds = []
        for b, (request, (tokens, ended)) in enumerate(zip(state.requests, kept, strict=True)):
            request.tokens += tokens
            request.num_left = 0 if ended else request.num_left - len(tokens)
            if len(tokens) < outcome.path_len[b]:
                live.cut(b, len(tokens))
            num_accepted = min(outcome.path_len[b] - 1, len(tokens))
            # What the host has waited for is draft, verification and commit in one.
            seconds_of = (0.0, seconds, 0.0)
            logits = None
            if any(self.kept.values()):
                logits = live.chosen_from(b, len(tokens))
            rounds.append(
                Round(
                    tokens,
                    outcome.num_nodes[b] - 1,
                    num_accepted,
                    seconds_of,
                    logits if self.keep_logits else None,
                    logits if self.keep_scores else None,
                )
            )
        lengths = [len(tokens) for tokens, _ in kept]
        whole = lengths == list(outcome.path_len)
        lag = live.drafter.lag
        for slots, behind in ((state.shallow_kv.slots, 0), (state.adapter_kv.slots, lag)):
            (slots.follow if whole else slots.rewind)([n - behind for n in state.prefix_lens])
        return rounds

    def _step_back(self, state: DecodeState) -> None:
        """A round that could not be kept has not been. The adapter has seen the slot in front of
        the root, whose exit state is lost: the next round does without.
        """
        for slots in (state.shallow_kv.slots, state.adapter_kv.slots):
            slots.rewind(state.prefix_lens)
        self._live, self._steps_back = None, True
