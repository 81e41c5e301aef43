"""Kangaroo's trees where nothing is read back: the device itself says how they grow."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from kangaroo.config import MAX_TREE_NODES, DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.growth import sharpness
from kangaroo.draft.shallow import through_shallow_layers
from kangaroo.draft.steps import DeviceDrafter
from kangaroo.engine.state import DecodeState
from kangaroo_kernels.draft_step import Ranking
from kangaroo_kernels.draft_trees import DraftTrees, Seedbed, widths
from kangaroo_kernels.draws import Draws
from kangaroo_kernels.exit_states import ExitStates
from kangaroo_kernels.nodes import NodeBatch


class Pass(NamedTuple):
    """One of a tree's.

    Attributes:
        newest: places of the nodes that are drafted behind.
        width: places for the next; 0: they are leaves, and the tree is done.
        left: passes, this one included.
    """

    newest: range
    width: int
    left: int


def passes_of(max_nodes: int, max_depth: int) -> list[Pass]:
    """In their order; none where nothing may be drafted."""
    if max_nodes == 1 or max_depth == 0:
        return []
    found, newest = list[Pass](), range(1)
    for n, width in enumerate([*widths(max_nodes, max_depth), 0]):
        found.append(Pass(newest, width, max_depth - n))
        newest = range(newest.stop, newest.stop + width)
    return found


def grows_on_the_device(config: DraftConfig) -> bool:
    """Drafts of this config: chains; trees whose shape is given; and others for which the device
    has places, at every depth, for all that the passes might take.
    """
    if config.draft != "tree" or config.tree_widths:
        return True
    depths = range(1, config.depth + 1)
    places = (passes_of(config.max_nodes, depth)[-1:] for depth in depths)
    most = max((last.newest.stop for found in places for last in found), default=1)
    return most <= MAX_TREE_NODES


class DeviceTreeDrafter(DeviceDrafter, BranchingDrafter):
    """The dynamic trees of :class:`BranchingDrafter`, pass by pass, for capture. A pass that is
    left out, because every tree has stopped, changes nothing that is read.

    While a tree grows its nodes have slots of their own, and what is verified is put together in
    others: all of its nodes go through the shallow layers once more, at the price of those that
    would have been new there.
    """

    lag = 0  # every node's adapter row is written behind verification

    def take_over(self, state: DecodeState) -> None:
        """From here on the adapter has seen all, whatever another drafter has left."""
        self._write_up(state, drafting=True)
        if self.adapter is not None and any(state.lags):
            self._write_behind(self.adapter, state)
        state.adapter_kv.slots.rewind(state.prefix_lens)

    def new_trees(self, state: DecodeState, num_nodes: int) -> DraftTrees:
        """Roots alone, of every sequence of `state`, with room for `num_nodes`."""
        batch, device = len(state.requests), state.exit_states.device
        return DraftTrees.of_roots(batch, num_nodes, self.config.confidence, device)

    def new_seedbed(self, state: DecodeState, passes: list[Pass]) -> Seedbed:
        """Places for all nodes of `passes` that are drafted behind."""
        num_places = passes[-1].newest.stop if passes else 1
        device = state.exit_states.device
        return Seedbed.empty(len(state.requests), num_places, self.num_ranked, device)

    def root(self, state: DecodeState, trees: DraftTrees) -> ExitStates:
        """The roots through layers [0, E)."""
        nodes = state.shallow_kv.slots.chain(0, 1)
        return self.enter(state, trees.nodes.tokens[:, :1].contiguous(), nodes)

    def grow(
        self,
        state: DecodeState,
        seedbed: Seedbed,
        trees: DraftTrees,
        now: Pass,
        states: ExitStates,
        draws: Draws | None = None,
    ) -> ExitStates:
        """The tokens behind the newest nodes, whose exit states these are, those that become nodes,
        and the nodes through layers [0, E) if more may follow: exit states.
        """
        newest = now.newest
        nodes = self._nodes(state, seedbed.positions, seedbed.ancestors, newest)
        self.model.kernels.grow_tree(
            *self._behind(state, states, nodes, self.num_ranked, draws),
            seedbed,
            trees,
            max_nodes=min(self.config.max_nodes, trees.parents.shape[1]),
            first=newest.start,
            width=now.width,
            passes_left=now.left,
            sharpness=sharpness(sampled=draws is not None),
        )
        if now.width:
            new = range(newest.stop, newest.stop + now.width)
            tokens = seedbed.tokens[:, new.start : new.stop].contiguous()
            nodes = self._nodes(state, seedbed.positions, seedbed.ancestors, new)
            states = self.enter(state, tokens, nodes)
        return states

    def through_layers(self, state: DecodeState, tokens: Tensor, nodes: NodeBatch) -> None:
        """Nodes of `tokens` [B, N] through layers [0, E)."""
        state.shallow_kv.num_nodes = nodes.first_node
        through_shallow_layers(self.model, self.config.exit_layer, state, tokens, nodes)

    def refresh(
        self, state: DecodeState, nodes: NodeBatch, h_deep: Tensor, successors: Tensor
    ) -> None:
        """The adapter's rows of all nodes, which have last states h_deep [B, N, C], and those that
        will be committed the tokens `successors` [B, N] behind them.
        """
        if self.adapter is not None:
            state.adapter_kv.num_nodes, h = 0, state.hidden(0, h_deep.shape[1])
            states = self._states_of(self.adapter, h, h_deep, successors)
            self._write_verified(self.adapter, state, nodes, states)

    def _behind(
        self,
        state: DecodeState,
        states: ExitStates,
        nodes: NodeBatch,
        k: int,
        draws: Draws | None,
    ) -> Ranking:
        """The k tokens that rank first behind each of the newest nodes, which have these states."""
        where = states, state.adapter_kv.rows, nodes
        if draws is None:
            return self.steps.topk(*where, k)
        logits, ids = self.steps.logits(*where), self.head.token_ids
        draw = self.model.kernels.draw_tokens
        tokens, probabilities = draw(logits, draws, nodes.positions, k, token_ids=ids)
        return tokens.clamp(min=0), probabilities  # -1: none, of logits that are not finite

    def _nodes(
        self, state: DecodeState, positions: Tensor, ancestors: Tensor, places: range
    ) -> NodeBatch:
        """Those at `places`; positions and ancestors [B, P] are of all places."""
        slots = state.shallow_kv.slots
        if places.start == 0:
            return slots.chain(0, 1)
        own = slice(places.start, places.stop)
        return NodeBatch(
            positions[:, own].contiguous(),
            slots.cache_seqlens,
            places.start,
            ancestors[:, own].contiguous(),
        )
