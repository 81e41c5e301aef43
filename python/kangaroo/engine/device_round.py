"""A round that the device runs alone: steps of drafting, each left out where all drafts are
done; verification of all nodes; the commit. The host learns the tokens when all is done.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from kangaroo.cache import Slots
from kangaroo.config import MAX_TREE_NODES, DraftConfig
from kangaroo.draft.device_chains import DeviceChainDrafter
from kangaroo.draft.device_copies import DeviceCopies
from kangaroo.draft.device_trees import DeviceTreeDrafter
from kangaroo.engine.state import DecodeState
from kangaroo.sampling.sampler import draws_of
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.draws import Draws
from kangaroo_kernels.exit_states import ExitStates
from kangaroo_kernels.nodes import NodeBatch, SlotPlaces
from kangaroo_kernels.verify_tree import Verdict


class Shape(NamedTuple):
    """What rounds are made for.

    Attributes:
        depth: drafts along a path at most.
        eos_ids: tokens that end each of the `batch` sequences.
        ahead: rounds that are launched before the first of them is read; more than one where the
            sequences end by what the device knows alone.
        drawn: tokens are drawn, of some sequence at least.
        copied: tokens at most that are copied where a text repeats itself; 0: none are.
    """

    batch: int
    depth: int
    eos_ids: tuple[int, ...]
    ahead: int
    drawn: bool = False
    copied: int = 0


class Outcome(NamedTuple):
    """What a round brought, of every sequence.

    Attributes:
        tokens: cut behind an end-of-sequence token and at what was left; -1: no finite logits.
        num_nodes: of its tree; path_len: of its accepted path; both with the root.
        num_steps: of drafting that were run, for all sequences together.
    """

    tokens: Sequence[Sequence[int]]
    num_nodes: Sequence[int]
    path_len: Sequence[int]
    num_steps: int


@dataclass(frozen=True)
class Front:
    """What finds drafts without a step.

    Attributes:
        find: in front of the steps. It stops chains, and sets `found` [B] int32 where it does.
        enter: behind the steps, where some of `found` is not 0; None: nothing need be done there.
    """

    find: Callable[[], None]
    enter: Callable[[], object] | None
    found: Tensor


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
    front: Front | None = None


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


class DeviceRounds(ABC):
    """Rounds of the sequences of one `state`, as long as these stay the same; `runtime` runs
    them.

    Args:
        enter: copies through layers [0, E), see Front.

    Attributes:
        trees: what is verified, the roots first; nodes: theirs.
        copies: what finds drafts in the texts; None: nothing does.
        draws: how tokens are drawn; None: they are the most probable.
        logits: [B, N, V] float32, the last round's, of all nodes.
        newest: exit states of the nodes that the next step drafts behind; None between rounds, so
            that one that is captured finds the memory of the one that was not.
    """

    newest: ExitStates | None = None

    def __init__(
        self,
        state: DecodeState,
        drafter: DeviceChainDrafter | DeviceTreeDrafter,
        runtime: Callable[[Pieces], Runtime],
        shape: Shape,
        trees: DraftTrees,
        steps: Sequence[Callable[[], None]],
        *,
        enter: Callable[[], object] | None = None,
    ):
        self.state, self.shape, self.trees, self.nodes = state, shape, trees, trees.nodes
        self.drafter: DeviceChainDrafter | DeviceTreeDrafter = drafter
        nodes, model = trees.nodes, drafter.model
        path_len = torch.ones(len(nodes.tokens), dtype=torch.int32, device=nodes.tokens.device)
        path, bonus = torch.zeros_like(nodes.tokens), torch.zeros_like(nodes.tokens[:, 0])
        self.verdict = Verdict(path, path_len, bonus)
        self.successors = torch.zeros_like(nodes.tokens)
        vocab = len(model.weights.lm_head)
        self.logits = state.exit_states.new_empty(*nodes.tokens.shape, vocab, dtype=torch.float32)
        self.draws = Draws(*map(torch.clone, self._draws())) if shape.drawn else None
        self.copies, front = None, None
        if shape.copied:
            texts, seqlens = state.texts_on_device(), state.shallow_kv.slots.cache_seqlens
            rule = drafter.config.lookup, shape.copied
            own = texts.rows[: shape.batch]
            self.copies = DeviceCopies(model.kernels, own, seqlens, *rule)
            front = Front(self.find, enter, self.copies.found)
        self.runtime = runtime(Pieces(steps, self.tail, nodes, self.verdict, shape, front))

    @property
    def num_nodes(self) -> int:
        """Of every tree as it is verified, padding included."""
        return self.nodes.tokens.shape[1]

    def begin(self) -> None:
        """Go on where the sequences have come to; also where another way to decode has taken
        them.
        """
        state, nodes = self.state, self.nodes
        state.forget_nodes()
        self.drafter.take_over(state)
        nodes.tokens[:, 0] = torch.tensor([request.tokens[-1] for request in state.requests])
        nodes.positions[:, 0] = state.shallow_kv.slots.cache_seqlens
        self.verdict.path_len.fill_(1)
        if self.copies is not None:
            state.texts_on_device().follow(state.requests)
        if self.draws is not None:
            for values, new in zip(self.draws, self._draws(), strict=True):
                values.copy_(new)
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

    def find(self) -> None:
        """Drafts in the texts, which the last round has made longer; see Front."""
        assert self.copies is not None, "only rounds that copy have a front"
        self.copies.find(self.verdict, self.trees)

    @abstractmethod
    def tail(self, done: Tensor) -> None:
        """Verification and commit; see Pieces."""

    def cut(self, sequence: int, num_kept: int) -> None:
        """The path of the last round ends earlier than the device knows: the next root is inside
        it.
        """
        states = self.state.exit_states[sequence]
        last = self.verdict.path[sequence, num_kept - 1 : num_kept]
        states[:1] = states[1 + last]  # by an index that stays on the device

    def chosen_from(self, sequence: int, num_tokens: int) -> Tensor:
        """[num_tokens, V] float32, what the first tokens of the last round were chosen from."""
        path = self.verdict.path[sequence, :num_tokens]
        return self.logits[sequence].index_select(0, path)

    def verify(self, nodes: NodeBatch) -> Tensor:
        """All nodes through layers [E, L): last states [B, N, C]; and what is kept of them."""
        state, model, tree = self.state, self.drafter.model, self.nodes
        exit_layer, num_layers = self.drafter.config.exit_layer, model.config.num_layers
        h = state.hidden(0, self.num_nodes)
        h = model.layers(h, exit_layer, num_layers, state.deep_kv, nodes)
        trees = tree.tokens, self.trees.parents, tree.num_nodes
        logits, choices = model.logits(h, self.logits), None
        if self.draws is not None:
            choices = model.kernels.draw_tokens(logits, self.draws, nodes.positions)[0][..., 0]
        model.kernels.verify_tree(
            logits, *trees, out=self.verdict, successors=self.successors, choices=choices
        )
        return h

    def _draws(self) -> Draws:
        samplers = [request.sampler for request in self.state.requests]
        return draws_of(samplers, self.nodes.tokens.device)

    def commit(self, done: Tensor) -> None:
        """The paths, whose rows are in their slots, become history."""
        state = self.state
        self.drafter.model.kernels.commit_path(
            self.verdict,
            self.nodes,
            state.exit_states[: len(self.nodes.tokens)],
            (places(state.shallow_kv.slots), places(state.adapter_kv.slots)),
            done,
            lag=self.drafter.lag,
            limit=state.shallow_kv.num_slots - MAX_TREE_NODES,
        )
        state.forget_nodes()
        self.newest = None


def num_nodes_of(config: DraftConfig, depth: int, copied: int) -> int:
    """Of every tree of a captured round, padding included."""
    grown = config.draft == "tree" and not config.tree_widths and depth > 1
    return max(config.max_nodes if grown else config.most_nodes(depth), 1 + copied)


def places(slots: Slots) -> SlotPlaces:
    """The lengths and positions that the device keeps."""
    return SlotPlaces(slots.cache_seqlens, slots.positions)
