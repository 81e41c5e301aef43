"""The target: a Llama-family decoder whose only forward is layers(h, start, stop)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import MAX_TREE_NODES, ModelConfig
from kangaroo_kernels import KernelSet
from kangaroo_kernels.layer_weights import LayerWeights
from kangaroo_kernels.nodes import NodeBatch


@dataclass(frozen=True, slots=True)
class LlamaWeights:
    """embed [V, C], layers, norm [C], lm_head [V, C] (the embedding itself when tied)."""

    embed: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    lm_head: Tensor


def rope_table(config: ModelConfig, device: torch.device) -> Tensor:
    """Cosines and sines of every position: [2, max_seq_len + MAX_TREE_NODES, D / 2] float32;
    behind the context stands padding alone.
    """
    inv_freq = torch.tensor(config.rope_inv_freq, dtype=torch.float32)
    num_positions = config.max_seq_len + MAX_TREE_NODES
    angles = torch.arange(num_positions, dtype=torch.float32)[:, None] * inv_freq
    return (torch.stack([angles.cos(), angles.sin()]) * config.rope_scale).to(device)


class Llama:
    """Weights and the kernels that run them. Holds nothing of any sequence.

    Attributes:
        kernels: decode, and prefill too where `prefill_kernels` are None; these need not be
            row-invariant.
        fused: whole layers in one call, where `kernels` have that.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: LlamaWeights,
        kernels: KernelSet,
        prefill_kernels: KernelSet | None = None,
    ):
        self.config, self.weights, self.kernels = config, weights, kernels
        self.prefill_kernels = prefill_kernels
        self.rope = rope_table(config, weights.norm.device)
        self.fused = kernels.decoder_layers(weights.layers, self.rope, config.rms_norm_eps)

    def with_layers(self, layers: Sequence[LayerWeights]) -> Llama:
        """The same embedding, norm, head and kernels around other layers of the same geometry."""
        other = copy(self)
        other.config = replace(self.config, num_layers=len(layers))
        other.weights = replace(self.weights, layers=tuple(layers))
        other.fused = self.kernels.decoder_layers(
            other.weights.layers, self.rope, self.config.rms_norm_eps
        )
        return other

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens [B, N] int64 -> [B, N, C]."""
        return self.kernels.embedding(tokens, self.weights.embed)

    def layers(
        self,
        h: Tensor,
        start: int,
        stop: int,
        kv: SlotCache,
        nodes: NodeBatch,
        out: Tensor | None = None,
        *,
        prefill: bool = False,
    ) -> Tensor:
        """Run layers [start, stop) on h [B, N, C] and append their keys and values to `kv`, which
        begins at `start`; at least one layer. The result is written to `out` [B, N, C] where it is
        given. `prefill`: by the kernels that are for it.
        """
        if prefill and self.prefill_kernels is not None:
            where = start, stop, kv.rows, nodes, out
            h = self._op_by_op(h, *where, kernels=self.prefill_kernels)
        else:
            h = self.through(h, start, stop, kv.rows, nodes, out)
        kv.num_nodes += h.shape[1]
        return h

    def through(
        self,
        h: Tensor,
        start: int,
        stop: int,
        rows: Tensor,
        nodes: NodeBatch,
        out: Tensor | None = None,
    ) -> Tensor:
        """What `layers` does, with the rows of a cache that it is not told of."""
        if self.fused is not None:
            return self.fused(h, start, stop, rows, nodes, out)
        return self._op_by_op(h, start, stop, rows, nodes, out, kernels=self.kernels)

    def _op_by_op(
        self,
        h: Tensor,
        start: int,
        stop: int,
        kv: Tensor,
        nodes: NodeBatch,
        out: Tensor | None,
        *,
        kernels: KernelSet,
    ) -> Tensor:
        """See the contract of decoder_layers."""
        eps, scale = self.config.rms_norm_eps, self.config.head_dim**-0.5
        for index in range(start, stop):
            w = self.weights.layers[index]
            k_cache, v_cache = kv[2 * (index - start)], kv[2 * (index - start) + 1]
            qkv = kernels.linear(h, w.qkv, bias=w.qkv_bias, norm_weight=w.input_norm, eps=eps)
            q = kernels.rope_append_kv(
                qkv, k_cache, v_cache, nodes, self.rope, q_norm=w.q_norm, k_norm=w.k_norm, eps=eps
            )
            heads = kernels.tree_attention(q, k_cache, v_cache, nodes, scale)
            h = kernels.linear(heads.flatten(2), w.o, bias=w.o_bias, residual=h)
            place = out if index == stop - 1 else None
            h = kernels.gated_mlp(h, w.gate_up, w.down, w.post_norm, eps, out=place)
        return h

    def logits(self, h: Tensor, out: Tensor | None = None) -> Tensor:
        """Final norm and head: [B, N, C] -> [B, N, V] float32, written to `out` where it is
        given.
        """
        head, norm = self.weights.lm_head, self.weights.norm
        if out is None:
            out = h.new_empty(*h.shape[:2], len(head), dtype=torch.float32)
        eps = self.config.rms_norm_eps
        return self.kernels.linear(h, head, norm_weight=norm, eps=eps, out=out)
