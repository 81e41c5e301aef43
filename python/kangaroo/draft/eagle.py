"""An EAGLE-style head (arXiv 2401.15077): a decoder layer goes on from the target's last state, and
from its own guesses of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import MAX_TREE_NODES, DraftConfig
from kangaroo.draft.states import StateDrafter, keep
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.eagle import Eagle
from kangaroo.models.llama import Llama
from kangaroo_kernels.nodes import NodeBatch

KEYS_AND_VALUES = 2  # planes in front of those of the states


class EagleDrafter(StateDrafter):
    """Drafts chains. What it makes of a drafted slot stands where the target's own state will."""

    def __init__(self, model: Llama, config: DraftConfig, module: Eagle):
        super().__init__(model, config, module.config)
        self.module, self.layer = module, module.layer()
        self.around = model.with_layers([self.layer])

    def new_cache(self, batch: int, num_slots: int) -> SlotCache:
        """Keys and values of the layer, and states."""
        config, like = self.model.config, self.model.weights.norm
        heads, width = config.num_kv_heads, config.head_dim
        planes = KEYS_AND_VALUES - (-config.hidden_size // (heads * width))
        return SlotCache((planes, batch, heads), num_slots + MAX_TREE_NODES, width, like)

    def planes(self, own: SlotCache) -> Tensor:
        """See StateDrafter."""
        return own.rows[KEYS_AND_VALUES:]

    def states(self, state: DecodeState, trees: list[DraftTree]) -> Tensor:
        """See SteppingDrafter: guesses, which are kept for the next."""
        own = state.adapter_kv
        nodes, last = own.chain(1), [tree.tokens[-1:] for tree in trees]
        x = self._inputs(torch.tensor(last, device=own.storage.device), self._newest(own))
        h = self.around.layers(x, 0, 1, own.part(0, 1), nodes)
        keep(self.planes(own), nodes, h)
        own.num_nodes += 1
        return h

    def write_rows(self, own: SlotCache, nodes: NodeBatch, tokens: Tensor, states: Tensor) -> None:
        """Keys and values alone: nothing else of a verified slot is read."""
        model, w = self.model, self.layer
        eps, first_key = model.config.rms_norm_eps, w.o.shape[1]
        x, kernels = self._inputs(tokens, states), model.kernels
        bias = None if w.qkv_bias is None else w.qkv_bias[first_key:]
        rows = kernels.linear(x, w.qkv[first_key:], bias=bias, norm_weight=w.input_norm, eps=eps)
        kernels.rope_append_kv(rows, *own.layer(0), nodes, model.rope, k_norm=w.k_norm, eps=eps)

    def _inputs(self, tokens: Tensor, states: Tensor) -> Tensor:
        """Of the layer [B, N, C], by `tokens` [B, N] and the last states in front of them."""
        own, linear, eps = self.module, self.model.kernels.linear, self.model.config.rms_norm_eps
        token = self.model.embed(tokens)
        token = linear(token, own.embed_fc, norm_weight=own.embed_norm, eps=eps)
        return linear(states, own.state_fc, norm_weight=own.state_norm, eps=eps, residual=token)
