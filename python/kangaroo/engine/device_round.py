"""A round that the device runs alone, greedy, of chains: steps, each left out where every chain has
stopped; verification of all nodes; the commit. The host learns the tokens when all is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from kangaroo.cache import Slots
from kangaroo.config import MAX_TREE_NODES
from kangaroo.draft.device import DeviceDrafter
from kangaroo.engine.state import DecodeState
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.nodes import SlotPlaces
from kangaroo_kernels.verify_tree import Verdict


class Shape(NamedTuple):
    """What rounds are made for.

    Attributes:
        depth: drafts of a chain at most.
        eos_ids: tokens that end each of the `batch` sequences.
        ahead: rounds that are launched before the first of them is read; more than one where the
            sequences end by what the device knows alone.
    """

    batch: int
    depth: int
    eos_ids: tuple[int, ...]
    ahead: int


class Outcome(NamedTuple):
    """What a round brought, of every sequence.

    Attributes:
        tokens: cut behind an end-of-sequence token and at what was left; -1: no finite logits.
        num_nodes: of its tree; path_len: of its accepted path; both with the root.
    """

    tokens: Sequence[Sequence[int]]
    num_nodes: Sequence[int]
    path_len: Sequence[int]


@dataclass(frozen=True)
class Pieces:
    """A round as callables that enqueue it on the current stream, and what they write.

    Attributes:
        steps: of drafting; one is run unless every chain has stopped.
        tail: verification and commit, given `done` [B] int32.
    """

    steps: Sequence[Callable[[], None]]
    tail: Callable[[Tensor], None]
    chain: DraftChain
    verdict: Verdict
    shape: Shape


class Runtime(Protocol):
    """Runs the rounds of some pieces; see csrc/include/kangaroo/round.h."""

    @property
    def unread(self) -> int:
        """Rounds launched and not yet read."""
        ...

    def start(self, sequence: int, max_tokens: int) -> None:
        """A sequence may write so many tokens more."""
        ...

    def launch(self) -> None:
        """Enqueue a round."""
        ...

    def wait(self) -> Outcome:
        """Of the oldest round that is unread."""
        ...


class ChainRounds:
    """Rounds of the sequences of one `state`, as long as these stay the same; `runtime` runs
    them.
    """

    def __init__(
        self,
        state: DecodeState,
        drafter: DeviceDrafter,
        runtime: Callable[[Pieces], Runtime],
        shape: Shape,
    ):
        self.state, self.drafter, self.shape = state, drafter, shape
        self.chain = drafter.new_chain(state, shape.depth)
        tokens = self.chain.tokens
        batch, num_nodes = tokens.shape
        parents = torch.arange(-1, num_nodes - 1, device=tokens.device)
        self.parents = parents.expand(batch, num_nodes).contiguous()
        path_len = torch.ones(batch, dtype=torch.int32, device=tokens.device)
        self.verdict = Verdict(torch.zeros_like(tokens), path_len, torch.zeros_like(tokens[:, 0]))
        self.successors = torch.zeros_like(tokens)
        steps = [self._step(node) for node in range(num_nodes - 1)]
        self.runtime = runtime(Pieces(steps, self._tail, self.chain, self.verdict, shape))

    def begin(self) -> None:
        """Go on where the sequences have come to; also where another way to decode has taken
        them.
        """
        state, chain = self.state, self.chain
        state.forget_nodes()
        self.drafter.take_over(state)
        chain.tokens[:, 0] = torch.tensor([request.tokens[-1] for request in state.requests])
        chain.positions[:, 0] = state.shallow_kv.slots.cache_seqlens
        for b, request in enumerate(state.requests):
            self.runtime.start(b, request.num_left)

    def next(self, *, ahead: int) -> tuple[Outcome, float]:
        """A round, and the seconds that the host has waited for it; with it, `ahead` rounds are
        launched.
        """
        started = perf_counter()
        while self.runtime.unread < ahead:
            self.runtime.launch()
        outcome = self.runtime.wait()
        return outcome, perf_counter() - started

    def drain(self) -> None:
        """Rounds that were launched ahead are of no use."""
        while self.runtime.unread:
            self.runtime.wait()

    def _step(self, node: int) -> Callable[[], None]:
        def step() -> None:
            if node == 0:
                self.drafter.root(self.state, self.chain)
            self.drafter.step(self.state, self.chain, node)

        return step

    def _tail(self, done: Tensor) -> None:
        state, model, chain = self.state, self.drafter.model, self.chain
        batch, num_nodes = chain.tokens.shape
        if num_nodes == 1:
            self.drafter.root(state, chain)
            self.drafter.keep_up(state)
        exit_layer, num_layers = self.drafter.config.exit_layer, model.config.num_layers
        nodes = state.deep_kv.slots.chain(0, num_nodes)
        h = state.hidden(0, num_nodes)
        h = model.layers(h, exit_layer, num_layers, state.deep_kv, nodes)
        logits = model.logits(h)
        trees = chain.tokens, self.parents, chain.num_nodes
        model.kernels.verify_tree(logits, *trees, out=self.verdict, successors=self.successors)
        self.drafter.refresh(state, h, self.successors)
        model.kernels.commit_path(
            self.verdict,
            chain,
            state.exit_states[:batch],
            (places(state.shallow_kv.slots), places(state.adapter_kv.slots)),
            done,
            lag=self.drafter.lag,
            limit=state.shallow_kv.num_slots - MAX_TREE_NODES,
        )
        state.forget_nodes()


def places(slots: Slots) -> SlotPlaces:
    """The lengths and positions that the device keeps."""
    return SlotPlaces(slots.cache_seqlens, slots.positions)
