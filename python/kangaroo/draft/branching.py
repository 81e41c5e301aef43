"""Kangaroo's drafter with trees (paper: top-k 10, confidence 0.4): all new nodes in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import MAX_TREE_NODES, DraftConfig
from kangaroo.draft.growth import Ranking, growth_of
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.adapter import Adapter
from kangaroo.models.llama import Llama


class BranchingDrafter(KangarooDrafter):
    """Drafts trees. All nodes but those of the last pass go through the adapter, so its rows end
    where that pass begins.

    Raises:
        ValueError: more tokens wanted behind a node than the target has.
    """

    def __init__(self, model: Llama, adapter: Adapter | None, config: DraftConfig):
        super().__init__(model, adapter, config)
        self.num_ranked = max(config.tree_widths, default=config.draft_top_k)
        if self.num_ranked > self.head.num_ids:
            name = "tree_widths" if config.tree_widths else "draft_top_k"
            raise ValueError(
                f"{name}: expected at most the {self.head.num_ids} tokens of the target, "
                f"got {self.num_ranked}"
            )

    def new_cache(self, num_slots: int) -> SlotCache:
        """A tree has more nodes than tokens that it may add: room for those behind the end."""
        return super().new_cache(num_slots + MAX_TREE_NODES)

    def draft(self, state: DecodeState, max_depth: int) -> DraftTree:
        """A tree below the root. Children of a node behind which the drafter was not sure enough
        are kept; what would follow them is not drafted.
        """
        tree = DraftTree.root(state.tokens[-1])
        growth = growth_of(tree, self.config, max_depth)
        self._shallow_nodes(state, tree, 0)
        while self.adapter is not None and growth.open:
            num_nodes = len(tree)
            growth.extend(self._rankings(self.adapter, state, tree))
            self._shallow_nodes(state, tree, num_nodes)
        return tree

    def _shallow_nodes(self, state: DecodeState, tree: DraftTree, start: int) -> None:
        """Nodes from `start` on through layers [0, E)."""
        nodes = state.nodes(state.shallow_kv, tree, start)
        h = self.model.embed(torch.tensor([tree.tokens[start:]], device=state.positions.device))
        out = state.exit_hidden.next_hidden(h.shape[1])
        self.model.layers(h, 0, self.config.exit_layer, state.shallow_kv, nodes, out)

    def _rankings(self, adapter: Adapter, state: DecodeState, tree: DraftTree) -> list[Ranking]:
        """The tokens behind each node that the adapter has not seen.

        With the root it sees the slots that it was behind. They are committed, and from then on
        the adapter's nodes are the tree's.
        """
        kv, root = state.adapter_kv, state.prefix_len
        h = state.exit_hidden.hidden(kv.length, state.exit_hidden.length)
        num_new = len(tree) - max(kv.length - root, 0)
        if len(tree) == 1:
            nodes = kv.chain(h.shape[1], state.positions)
        else:
            nodes = state.nodes(kv, tree, len(tree) - num_new)
        h = adapter.step(h, kv, nodes, self.model.rope, self.model.kernels)
        if kv.committed < root:
            kv.settle(root)
        return self._ranked(adapter, state, tree, h[:, -num_new:].contiguous())

    def _ranked(
        self, adapter: Adapter, state: DecodeState, tree: DraftTree, h: Tensor
    ) -> list[Ranking]:
        """The most probable tokens behind the newest nodes, of adapter states h [1, N, C]."""
        ranked = self.model.kernels.topk_confidence(
            h, self.head, adapter.norm, adapter.config.rms_norm_eps, self.num_ranked
        )
        tokens, probabilities = (x[0].tolist() for x in ranked)
        return list(zip(tokens, probabilities, strict=True))
