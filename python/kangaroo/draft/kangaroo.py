"""Kangaroo's drafter (paper, section 3): shallow layers, adapter, the target's head; stops as soon
as it is unsure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import DraftConfig
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.adapter import Adapter
from kangaroo.models.llama import Llama
from kangaroo_kernels.draft_head import DraftHead


class KangarooDrafter:
    """Drafts chains. Without an adapter it drafts nothing, which makes the loop autoregressive."""

    def __init__(self, model: Llama, adapter: Adapter | None, config: DraftConfig):
        self.model, self.adapter, self.config = model, adapter, config
        self.head = DraftHead(model.weights.lm_head)

    def new_cache(self, num_slots: int) -> SlotCache:
        """Rows for the adapter's keys and values; none without an adapter."""
        if self.adapter is None:
            return SlotCache((0, 1, 1), num_slots, 1, self.model.weights.norm)
        config = self.adapter.config
        return SlotCache(
            (2, 1, config.num_kv_heads), num_slots, config.head_dim, self.model.weights.norm
        )

    def prefill(self, state: DecodeState, h_deep: Tensor) -> None:
        """Write the adapter's rows of the prompt's next slots."""
        if self.adapter is not None:
            self._write_verified(self.adapter, state, h_deep)

    def draft(self, state: DecodeState, max_depth: int) -> DraftTree:
        """A chain below the root. The token that was not sure enough is kept; what would follow it
        is not drafted.
        """
        tree = DraftTree.root(state.tokens[-1])
        self._shallow(state, tree.tokens[-1])
        while self.adapter is not None and len(tree) <= max_depth:
            token, confidence = self._next_token(self.adapter, state)
            tree.add(token, parent=len(tree) - 1)
            self._shallow(state, token)
            if confidence < self.config.confidence:
                break
        return tree

    def commit(self, state: DecodeState, h_deep: Tensor) -> None:
        """`paper` keeps the accepted rows it has; `deep_prefix` rewrites them with what
        verification has learnt.
        """
        if self.adapter is None:
            return
        if self.adapter.config.kind == "paper":
            state.adapter_kv.commit(min(state.adapter_kv.length, state.prefix_len))
        else:
            state.adapter_kv.commit(state.prefix_len - h_deep.shape[1])
            self._write_verified(self.adapter, state, h_deep)

    def _shallow(self, state: DecodeState, token: int) -> None:
        """One node through layers [0, E)."""
        h = self.model.embed(torch.tensor([[token]], device=state.positions.device))
        nodes = state.shallow_kv.chain(1, state.positions)
        h = self.model.layers(h, 0, self.config.exit_layer, state.shallow_kv, nodes)
        state.exit_hidden.append_hidden(h)

    def _next_token(self, adapter: Adapter, state: DecodeState) -> tuple[int, float]:
        """The token after the newest node, and its probability.

        The adapter passes over every slot it has not seen: one, or two after a fully accepted
            round.
        """
        h = state.exit_hidden.hidden(state.adapter_kv.length, state.exit_hidden.length)
        nodes = state.adapter_kv.chain(h.shape[1], state.positions)
        h = adapter.step(h, state.adapter_kv, nodes, self.model.rope, self.model.kernels)
        token, confidence = self.model.kernels.top1_confidence(
            h[:, -1:], self.head, adapter.norm, adapter.config.rms_norm_eps
        )
        return int(token), float(confidence)

    def _write_verified(self, adapter: Adapter, state: DecodeState, h_deep: Tensor) -> None:
        start, num_slots = state.adapter_kv.length, h_deep.shape[1]
        h = state.exit_hidden.hidden(start, start + num_slots)
        nodes = state.adapter_kv.chain(num_slots, state.positions)
        adapter.write_verified(
            h, h_deep, state.adapter_kv, nodes, self.model.rope, kernels=self.model.kernels
        )
        state.adapter_kv.commit(start + num_slots)
