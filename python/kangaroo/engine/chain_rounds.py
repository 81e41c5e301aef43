"""Rounds of chains that the device runs alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from kangaroo.draft.device_chains import DeviceChainDrafter
from kangaroo.engine.device_round import DeviceRounds, Pieces, Runtime, Shape
from kangaroo.engine.state import DecodeState


class ChainRounds(DeviceRounds):
    """Of chains that are drafted, and of copies."""

    drafter: DeviceChainDrafter

    def __init__(
        self,
        state: DecodeState,
        drafter: DeviceChainDrafter,
        runtime: Callable[[Pieces], Runtime],
        shape: Shape,
    ):
        chains = drafter.new_chains(state, max(shape.depth, shape.copied))
        steps = [partial(self._step, node) for node in range(shape.depth)]
        # What is only copied passes in the tail, found or not.
        enter = partial(drafter.copied, state, chains.nodes) if shape.depth else None
        super().__init__(state, drafter, runtime, shape, chains, steps, enter=enter)

    def tail(self, done: Tensor) -> None:
        """See DeviceRounds."""
        state = self.state
        if self.num_nodes == 1:
            self.drafter.root(state, self.nodes)
            self.drafter.keep_up(state)
        elif self.shape.depth == 0:
            self.drafter.copied(state, self.nodes)
        h = self.verify(state.deep_kv.slots.chain(0, self.num_nodes))
        self.drafter.refresh(state, h, self.successors)
        self.commit(done)

    def _step(self, node: int) -> None:
        if node == 0:
            self.newest = self.drafter.root(self.state, self.nodes)
        assert self.newest is not None, "steps go in their order"
        self.newest = self.drafter.step(self.state, self.nodes, node, self.newest, self.draws)
