"""Trees of a given shape where nothing is read back: from round to round only tokens change."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kangaroo.draft.device_trees import DeviceTreeDrafter, Pass
from kangaroo.draft.growth import StaticGrowth
from kangaroo.draft.tree import DraftTree, places, tensors
from kangaroo.engine.state import DecodeState
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.draws import Draws
from kangaroo_kernels.exit_states import ExitStates


class FixedTrees(NamedTuple):
    """As they are verified, with every node in its place.

    Attributes:
        shape: their parents and ancestors, which copies overwrite in `trees`.
        depths: [B, N] int32.
        copied: some trees may be copies, which nothing else may touch.
    """

    trees: DraftTrees
    shape: tuple[Tensor, Tensor]
    depths: Tensor
    copied: bool

    def plant(self) -> None:
        """Trees of that shape below the roots."""
        nodes, (parents, ancestors) = self.trees.nodes, self.shape
        self.put(nodes.positions, nodes.positions[:, :1] + self.depths)
        if self.copied:
            self.put(self.trees.parents, parents)
            self.put(self.trees.ancestors, ancestors)

    def put(self, rows: Tensor, new: Tensor | int) -> None:
        """Into `rows` [B, N] of the trees that grow."""
        if self.copied:
            new = torch.where(self.trees.nodes.stopped[:, None] == 0, new, rows)
        rows[:] = new


def levels_of(widths: tuple[int, ...]) -> list[Pass]:
    """A pass each."""
    found, newest = list[Pass](), range(1)
    for n, width in enumerate(widths):
        found.append(Pass(newest, width * len(newest), len(widths) - n))
        newest = range(newest.stop, newest.stop + found[-1].width)
    return found


class FixedTreeDrafter(DeviceTreeDrafter):
    """Trees with `tree_widths`. Nodes have the slots in which they are verified from the first."""

    def new_fixed(self, state: DecodeState, depth: int, copied: int) -> FixedTrees:
        """Of every sequence of `state`, `depth` levels below the root, or so many tokens of a copy
        in its place.
        """
        tree = DraftTree.root(0)
        growth = StaticGrowth(tree, self.config, depth)
        while growth.open:
            newest = range(growth.first_new, len(tree))
            growth.extend([([0] * self.num_ranked, ()) for _ in newest])
        tree.pad(1 + copied)
        batch, device = len(state.requests), state.exit_states.device
        nodes = DraftChain.of_roots(batch, len(tree), 0.0, device)
        _, parents = tensors([tree] * batch, device)
        depths, ancestors = places([tree] * batch, 0, len(tree), device)
        trees = DraftTrees(nodes, parents.clone(), ancestors.clone())
        return FixedTrees(trees, (parents, ancestors), depths, copied > 0)

    def branch(
        self,
        state: DecodeState,
        fixed: FixedTrees,
        now: Pass,
        states: ExitStates,
        draws: Draws | None = None,
    ) -> ExitStates:
        """The next level: tokens behind the newest nodes, whose exit states these are, through
        layers [0, E): exit states.
        """
        nodes, (_, ancestors) = fixed.trees.nodes, fixed.shape
        if now.newest.start == 0:
            fixed.plant()
        newest = self._nodes(state, nodes.positions, ancestors, now.newest)
        num_children = now.width // len(now.newest)
        tokens = self._behind(state, states, newest, num_children, draws)[0].flatten(1)
        new = range(now.newest.stop, now.newest.stop + now.width)
        fixed.put(nodes.tokens[:, new.start : new.stop], tokens)
        if now.left == 1:
            fixed.put(nodes.num_nodes[:, None], new.stop)
        places_of_new = self._nodes(state, nodes.positions, ancestors, new)
        return self.enter(state, tokens, places_of_new)
