"""Kangaroo's drafter for sampling: tokens are drawn, and what they were drawn from is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo.config import DraftConfig
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
        h, head = self._adapt(adapter, state), self.model.weights.lm_head
        out = h.new_empty(1, 1, len(head), dtype=torch.float32)
        eps = adapter.config.rms_norm_eps
        return self.model.kernels.linear(h, head, norm_weight=adapter.norm, eps=eps, out=out)[:, 0]
