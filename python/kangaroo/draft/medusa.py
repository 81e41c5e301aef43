"""Medusa-1 (arXiv 2401.10774): every token of a draft from one state of the target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import MAX_TREE_NODES, DraftConfig
from kangaroo.draft.chains import drawn
from kangaroo.draft.states import StateDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.llama import Llama
from kangaroo.models.medusa import Medusa


class MedusaDrafter(StateDrafter):
    """Drafts chains, a head for each token; heads behind the last token are not read.

    Raises:
        ValueError: more tokens than there are heads, or trees are wanted.
    """

    def __init__(self, model: Llama, config: DraftConfig, module: Medusa):
        super().__init__(model, config, module.config)
        self.module = module
        if config.depth > (most := module.config.num_draft_heads):
            raise ValueError(
                f"max_depth: expected at most {most}, the number of draft heads, got {config.depth}"
            )

    def new_cache(self, batch: int, num_slots: int) -> SlotCache:
        """States alone."""
        width, like = self.model.config.hidden_size, self.model.weights.norm
        return SlotCache((1, batch, 1), num_slots + MAX_TREE_NODES, width, like)

    def states(self, state: DecodeState, trees: list[DraftTree]) -> Tensor:
        """What the head of the next tokens reads: [B, 1, C]."""
        weights, eps = self.model.weights, self.model.config.rms_norm_eps
        newest = self._newest(state.adapter_kv)
        x = F.rms_norm(newest, newest.shape[-1:], weights.norm, eps)
        head = self.module.of(max(map(len, trees)))
        return x + F.silu(self.model.kernels.linear(x, head.weight, bias=head.bias))

    def _next_tokens(
        self, state: DecodeState, trees: list[DraftTree], growing: list[int]
    ) -> tuple[Tensor, Tensor]:
        h, head = self.states(state, trees), self.module.of(max(map(len, trees))).head
        logits = h.new_empty(len(h), 1, len(head), dtype=torch.float32)
        self.model.kernels.linear(h, head, out=logits)
        return drawn(self.model.kernels, state, trees, growing, logits[:, 0])
