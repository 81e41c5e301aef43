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
from kangaroo_kernels.nodes import NodeBatch


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
            nodes = state.adapter_kv.chain(h_deep.shape[1], state.positions)
            self._write_verified(self.adapter, state, nodes, h_deep)

    def draft(self, state: DecodeState, max_depth: int) -> DraftTree:
        """A chain below the root. The token that was not sure enough is kept; what would follow it
        is not drafted.
        """
        tree = DraftTree.root(state.tokens[-1])
        self._shallow(state, torch.tensor([tree.tokens], device=state.positions.device))
        while self.adapter is not None and len(tree) <= max_depth:
            token, confidence = self._next_token(self.adapter, state)
            self._shallow(state, token)  # in the queue before the host waits for the token
            tree.add(int(token), parent=len(tree) - 1)
            if not float(confidence) >= self.config.confidence:
                break
        return tree

    def verified(self, state: DecodeState, tree: DraftTree, h_deep: Tensor) -> None:
        """`paper` keeps the rows that it has; `deep_prefix` rewrites those of all nodes with what
        verification has learnt: a row costs nothing beside the weights, and a rejected one goes
        with its slot.
        """
        if self.adapter is not None and self.adapter.config.kind == "deep_prefix":
            state.adapter_kv.length = state.prefix_len
            nodes = state.nodes(state.adapter_kv, tree)
            self._write_verified(self.adapter, state, nodes, h_deep)

    def _shallow(self, state: DecodeState, token: Tensor) -> None:
        """One node [1, 1] through layers [0, E)."""
        nodes, exit_layer = state.shallow_kv.chain(1, state.positions), self.config.exit_layer
        out = state.exit_hidden.next_hidden(1)
        self.model.layers(self.model.embed(token), 0, exit_layer, state.shallow_kv, nodes, out)

    def _next_token(self, adapter: Adapter, state: DecodeState) -> tuple[Tensor, Tensor]:
        """The token after the newest node, and its probability: [1, 1] each."""
        return self.model.kernels.top1_confidence(
            self._adapt(adapter, state), self.head, adapter.norm, adapter.config.rms_norm_eps
        )

    def _adapt(self, adapter: Adapter, state: DecodeState) -> Tensor:
        """The adapter's state of the newest node, [1, 1, C].

        The adapter passes over every slot it has not seen: one, or two after a fully accepted
            round.
        """
        h = state.exit_hidden.hidden(state.adapter_kv.length, state.exit_hidden.length)
        nodes = state.adapter_kv.chain(h.shape[1], state.positions)
        h = adapter.step(h, state.adapter_kv, nodes, self.model.rope, self.model.kernels)
        return h[:, -1:]

    def _write_verified(
        self, adapter: Adapter, state: DecodeState, nodes: NodeBatch, h_deep: Tensor
    ) -> None:
        start, num_slots = state.adapter_kv.length, h_deep.shape[1]
        h = state.exit_hidden.hidden(start, start + num_slots)
        adapter.write_verified(
            h, h_deep, state.adapter_kv, nodes, self.model.rope, kernels=self.model.kernels
        )
        state.adapter_kv.length = start + num_slots
