"""Kangaroo's drafters for sampling: chains that are drawn, trees of what may well be drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo.config import DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.growth import Ranking
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.adapter import Adapter
from kangaroo.models.llama import Llama
from kangaroo.sampling.sampler import Sampler


class SampledDrafter(KangarooDrafter):
    """Draws chains from the adapter's distribution, shaped as the target's is."""

    def __init__(
        self, model: Llama, adapter: Adapter | None, config: DraftConfig, sampler: Sampler
    ):
        super().__init__(model, adapter, config)
        self.sampler = sampler

    def draft(self, state: DecodeState, max_depth: int) -> DraftTree:
        """A chain below the root. Nothing is drafted behind a token whose row was not sure enough.

        The token itself is kept. Whether a position gets a draft may depend on the tokens in front
        of it, drawn ones as well: they are verified before it is. Dropping a token for what it
        turned out to be would leave the others of its row too often.
        """
        tree = DraftTree.root(state.tokens[-1])
        self._shallow(state, torch.tensor([tree.tokens], device=state.positions.device))
        while self.adapter is not None and len(tree) <= max_depth:
            ids = state.tokens + tree.tokens[1:]
            token, row = self.sampler.propose(ids, self._logits(self.adapter, state))
            self._shallow(state, token[None])
            tree.drawn_from[len(tree) - 1] = row
            tree.add(int(token), parent=len(tree) - 1)
            if not float(row.max()) >= self.config.confidence:
                break
        return tree

    def _logits(self, adapter: Adapter, state: DecodeState) -> Tensor:
        """The adapter's logits [1, V] float32 behind the newest node."""
        return head_logits(self.model, adapter, self._adapt(adapter, state))[:, 0]


class SampledBranchingDrafter(BranchingDrafter):
    """Trees for a coupled sampler: the race of a position, run with the adapter's row, says which
    tokens the target may draw there.

    In place of its probability a token has its share of the race, which is near 1 where the numbers
    leave little doubt; `confidence` is about that of the best. On tiny-py at temperature 1 such
    trees make a fifth to a third more tokens a verify pass than trees of the most probable ones.
    """

    def __init__(
        self, model: Llama, adapter: Adapter | None, config: DraftConfig, sampler: Sampler
    ):
        super().__init__(model, adapter, config)
        self.sampler = sampler

    def _ranked(
        self, adapter: Adapter, state: DecodeState, tree: DraftTree, h: Tensor
    ) -> list[Ranking]:
        nodes = range(len(tree) - h.shape[1], len(tree))
        histories = [state.tokens + tree.path_tokens(node) for node in nodes]
        shares = self.sampler.shares(histories, head_logits(self.model, adapter, h)[0])
        best = shares.topk(self.num_ranked)
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def head_logits(model: Llama, adapter: Adapter, h: Tensor) -> Tensor:
    """The target's head on adapter states h [1, N, C]: [1, N, V] float32."""
    head, eps = model.weights.lm_head, adapter.config.rms_norm_eps
    out = h.new_empty(1, h.shape[1], len(head), dtype=torch.float32)
    return model.kernels.linear(h, head, norm_weight=adapter.norm, eps=eps, out=out)
