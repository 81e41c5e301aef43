"""Rounds of dynamic trees that the device runs alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from kangaroo.draft.device_trees import DeviceTreeDrafter, Pass, passes_of
from kangaroo.engine.device_round import DeviceRounds, Pieces, Runtime, Shape
from kangaroo.engine.state import DecodeState
from kangaroo_kernels.exit_states import ExitStates
from kangaroo_kernels.nodes import NodeBatch


class TreeRounds(DeviceRounds):
    """Of dynamic trees.

    Attributes:
        newest: exit states of the nodes that the next pass drafts behind.
    """

    drafter: DeviceTreeDrafter
    newest: ExitStates

    def __init__(
        self,
        state: DecodeState,
        drafter: DeviceTreeDrafter,
        runtime: Callable[[Pieces], Runtime],
        shape: Shape,
    ):
        passes = passes_of(drafter.config.max_nodes, shape.depth)
        self.trees = drafter.new_trees(state, drafter.config.max_nodes if passes else 1)
        self.seedbed = drafter.new_seedbed(state, passes)
        steps = [partial(self._step, each) for each in passes]
        super().__init__(state, drafter, runtime, shape, self.trees.nodes, steps)

    def tail(self, done: Tensor) -> None:
        """See DeviceRounds."""
        state, kernels = self.state, self.drafter.model.kernels
        seqlens = state.shallow_kv.slots.cache_seqlens
        nodes = NodeBatch(self.nodes.positions, seqlens, 0, self.trees.ancestors)
        self.drafter.through_layers(state, self.nodes.tokens, nodes)
        h = self.verify(nodes, self.trees.parents)
        self.drafter.refresh(state, nodes, h, self.successors)
        if self.num_nodes > 1:
            rows = [cache.rows for cache in state.caches if cache.storage.numel()]
            kernels.compact_kv(rows, self.verdict.path, self.verdict.path_len, seqlens)
        self.commit(done)

    def _step(self, now: Pass) -> None:
        if now.newest.start == 0:
            self.newest = self.drafter.root(self.state, self.trees)
        parts = self.state, self.seedbed, self.trees, now
        self.newest = self.drafter.grow(*parts, self.newest, self.draws)
