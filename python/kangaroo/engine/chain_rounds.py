"""Rounds of chains that the device runs alone, of its own drafts or of what the host says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from kangaroo.draft.device import DeviceDrafter
from kangaroo.engine.device_round import DeviceRounds, Pieces, Runtime, Shape
from kangaroo.engine.state import DecodeState


class ChainRounds(DeviceRounds):
    """Of chains."""

    drafter: DeviceDrafter

    def __init__(
        self,
        state: DecodeState,
        drafter: DeviceDrafter,
        runtime: Callable[[Pieces], Runtime],
        shape: Shape,
    ):
        chain = drafter.new_chain(state, shape.depth)
        batch, num_nodes = chain.tokens.shape
        parents = torch.arange(-1, num_nodes - 1, device=chain.tokens.device)
        self.parents = parents.expand(batch, num_nodes).contiguous()
        num_steps = 0 if shape.copied else shape.depth
        steps = [partial(self._step, node) for node in range(num_steps)]
        super().__init__(state, drafter, runtime, shape, chain, steps)

    def tail(self, done: Tensor) -> None:
        """See DeviceRounds."""
        if self.num_nodes == 1:
            self.drafter.root(self.state, self.nodes)
            self.drafter.keep_up(self.state)
        self.finish(done)

    def finish(self, done: Tensor) -> None:
        """The tail from verification on."""
        state = self.state
        h = self.verify(state.deep_kv.slots.chain(0, self.num_nodes), self.parents)
        self.drafter.refresh(state, h, self.successors)
        self.commit(done)

    def _step(self, node: int) -> None:
        if node == 0:
            self.newest = self.drafter.root(self.state, self.nodes)
        assert self.newest is not None, "steps go in their order"
        self.newest = self.drafter.step(self.state, self.nodes, node, self.newest, self.draws)


class CopiedRounds(ChainRounds):
    """Of chains that the host says.

    Attributes:
        counts: [B] int32, nodes of each, the root included.
    """

    def __init__(
        self,
        state: DecodeState,
        drafter: DeviceDrafter,
        runtime: Callable[[Pieces], Runtime],
        shape: Shape,
    ):
        device = state.exit_states.device
        self.counts = torch.ones(shape.batch, dtype=torch.int32, device=device)
        super().__init__(state, drafter, runtime, shape)

    def say(self, copies: Sequence[Sequence[int]]) -> None:
        """What every sequence drafts in the next round, at most `depth` tokens."""
        room = self.shape.depth
        rows = [[*copy, *[0] * (room - len(copy))] for copy in copies]
        self.nodes.tokens[:, 1:] = torch.tensor(rows)
        self.counts.copy_(torch.tensor([1 + len(copy) for copy in copies], dtype=torch.int32))

    def tail(self, done: Tensor) -> None:
        """See DeviceRounds."""
        self.nodes.num_nodes.copy_(self.counts)
        self.drafter.copied(self.state, self.nodes)
        self.finish(done)
