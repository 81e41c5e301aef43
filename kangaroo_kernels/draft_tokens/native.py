"""draft_tokens in C++ on the CPU: no Python between the tokens of a chain."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo_kernels.adapter_weights import DrafterWeights
from kangaroo_kernels.checks import require_bounds, sizes
from kangaroo_kernels.decoder_layers.native import NativeLayers
from kangaroo_kernels.native import C, address, head_address, nodes_address, planes_address
from kangaroo_kernels.nodes import NodeBatch


class NativeDrafts:
    """Drafts behind `layers`; the weights are checked once, here.

    Raises:
        ValueError: shapes or dtypes that disagree.
        UnsupportedError: a head in float8.
    """

    def __init__(self, layers: NativeLayers, weights: DrafterWeights):
        self.layers, self.weights = layers, weights  # whose memory the addresses are of
        require_bounds({"num_layers": (weights.num_layers, 1, len(layers.layers))})
        dtype, width = layers.dtype, layers.width
        vocab, (_, q_width) = len(weights.embed), weights.adapter.o.shape
        self.embed = (address("embed", weights.embed, (vocab, width), dtype), vocab, width)
        self.q_width = q_width
        self.num_kv_heads = (len(weights.adapter.qkv) - q_width) // (2 * layers.head_dim)
        self.adapter = (
            address("input_norm", weights.adapter.input_norm, (width,), dtype),
            address("qkv", weights.adapter.qkv, (len(weights.adapter.qkv), width), dtype),
            address("o", weights.adapter.o, (width, q_width), dtype),
        )
        self.head = head_address(weights.head, weights.embed[None, :1], 1)
        self.norm = address("norm", weights.norm, (width,), dtype)

    def __call__(
        self,
        tokens: Tensor,
        exit_states: Tensor,
        kv: tuple[Tensor, Tensor],
        nodes: tuple[NodeBatch, NodeBatch],
        threshold: float,
    ) -> int:
        layers, weights = self.layers, self.weights
        one, capacity = sizes("tokens", tokens, 2)
        planes, num_states = 2 * weights.num_layers, sizes("exit_states", exit_states, 3)[1]
        layers_kv, plane = planes_address("kv of the layers", kv[0], planes, one, layers.dtype)
        adapter_kv, _ = planes_address("kv of the adapter", kv[1], 2, one, layers.dtype)
        for name, (_, _, h_kv, _, head_dim), expected in (
            ("kv of the layers", layers_kv, (layers.num_kv_heads, layers.head_dim)),
            ("kv of the adapter", adapter_kv, (self.num_kv_heads, layers.head_dim)),
        ):
            if (h_kv, head_dim) != expected:
                raise ValueError(
                    f"{name}: expected {expected[0]} heads of {expected[1]}, "
                    f"got {h_kv} of {head_dim}"
                )
        confidence = torch.empty(capacity)
        count: int = C.draft_tokens(
            layers.number,
            *self.embed,
            (
                layers.rows[0],
                weights.num_layers,
                layers_kv,
                2 * plane,
                layers.q_width // layers.head_dim,
                layers.intermediate,
                layers.eps,
            ),
            (*self.adapter, adapter_kv, weights.adapter_eps),
            self.q_width,
            layers.rope_address,
            nodes_address(nodes[0], (one, capacity)),
            nodes_address(nodes[1], (one, num_states)),
            address("exit_states", exit_states, (one, num_states, layers.width), layers.dtype),
            self.head,
            self.norm,
            address("tokens", tokens, (one, capacity), torch.int64),
            confidence.data_ptr(),
            threshold,
            weights.adapter_eps,
            torch.get_num_threads(),
        )
        return count
