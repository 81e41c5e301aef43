"""Rounds of trees that the device runs alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from kangaroo.draft.device_trees import DeviceTreeDrafter, Pass, passes_of
from kangaroo.draft.fixed_trees import FixedTreeDrafter, levels_of
from kangaroo.engine.device_round import DeviceRounds, Pieces, Runtime, Shape, num_nodes_of
from kangaroo.engine.state import DecodeState
from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.exit_states import ExitStates
from kangaroo_kernels.nodes import NodeBatch


class TreeRounds(DeviceRounds):
    """Of trees, which stand in `trees` when they are verified. What is copied is one, too."""

    drafter: DeviceTreeDrafter

    def __init__(
        self,
        state: DecodeState,
        drafter: DeviceTreeDrafter,
        runtime: Callable[[Pieces], Runtime],
        shape: Shape,
        trees: DraftTrees,
        passes: Sequence[Pass],
        *,
        enters: bool,
    ):
        steps = [partial(self._step, each) for each in passes]
        enter = self.through_layers if enters else None
        super().__init__(state, drafter, runtime, shape, trees, steps, enter=enter)

    def through_layers(self) -> NodeBatch:
        """All nodes through layers [0, E), where they are verified."""
        nodes = self.placed()
        self.drafter.through_layers(self.state, self.nodes.tokens, nodes)
        return nodes

    def finish(self, nodes: NodeBatch, done: Tensor) -> None:
        """The tail from verification on."""
        state, kernels = self.state, self.drafter.model.kernels
        h = self.verify(nodes)
        self.drafter.refresh(state, nodes, h, self.successors)
        if self.num_nodes > 1:
            rows = [cache.rows for cache in state.caches if cache.storage.numel()]
            path, path_len, _ = self.verdict
            kernels.compact_kv(rows, path, path_len, nodes.cache_seqlens)
        self.commit(done)

    def placed(self) -> NodeBatch:
        """All nodes as they are verified."""
        seqlens = self.state.shallow_kv.slots.cache_seqlens
        return NodeBatch(self.nodes.positions, seqlens, 0, self.trees.ancestors)

    def _step(self, now: Pass) -> None:
        if now.newest.start == 0:
            self.newest = self.drafter.root(self.state, self.trees)
        assert self.newest is not None, "passes go in their order"
        self.newest = self.grow(now, self.newest)

    @abstractmethod
    def grow(self, now: Pass, newest: ExitStates) -> ExitStates:
        """A step, behind the newest nodes: exit states of the next."""


class GrownTreeRounds(TreeRounds):
    """Of dynamic trees. All nodes go through the shallow layers once more, where they stand."""

    def __init__(
        self,
        state: DecodeState,
        drafter: DeviceTreeDrafter,
        runtime: Callable[[Pieces], Runtime],
        shape: Shape,
    ):
        passes = passes_of(drafter.config.max_nodes, shape.depth)
        num_nodes = num_nodes_of(drafter.config, shape.depth, shape.copied)
        trees = drafter.new_trees(state, num_nodes)
        self.seedbed = drafter.new_seedbed(state, passes)
        super().__init__(state, drafter, runtime, shape, trees, passes, enters=False)

    def tail(self, done: Tensor) -> None:
        """See DeviceRounds."""
        self.finish(self.through_layers(), done)

    def grow(self, now: Pass, newest: ExitStates) -> ExitStates:
        """See TreeRounds."""
        parts = self.state, self.seedbed, self.trees, now
        return self.drafter.grow(*parts, newest, self.draws)


class FixedTreeRounds(TreeRounds):
    """Of trees whose shape is given."""

    drafter: FixedTreeDrafter

    def __init__(
        self,
        state: DecodeState,
        drafter: FixedTreeDrafter,
        runtime: Callable[[Pieces], Runtime],
        shape: Shape,
    ):
        self.fixed = drafter.new_fixed(state, shape.depth, shape.copied)
        passes = levels_of(drafter.config.tree_widths[: shape.depth])
        parts = state, drafter, runtime, shape, self.fixed.trees, passes
        # What is only copied passes in the tail, found or not.
        super().__init__(*parts, enters=shape.depth > 0)

    def tail(self, done: Tensor) -> None:
        """See DeviceRounds."""
        drafted = self.shape.depth > 0
        self.finish(self.placed() if drafted else self.through_layers(), done)

    def grow(self, now: Pass, newest: ExitStates) -> ExitStates:
        """See TreeRounds."""
        return self.drafter.branch(self.state, self.fixed, now, newest, self.draws)
