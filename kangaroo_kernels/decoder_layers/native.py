"""decoder_layers in C++ on the CPU: no Python between the ops of a layer, nor between layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kangaroo_kernels.checks import require_heads, sizes
from kangaroo_kernels.layer_weights import LayerWeights
from kangaroo_kernels.native import (
    C,
    address,
    nodes_address,
    number_of,
    optional_address,
    planes_address,
    rope_address,
)
from kangaroo_kernels.nodes import NodeBatch


def layer_addresses(w: LayerWeights, head_dim: int) -> list[int]:
    """The fields of kangaroo_layer_weights, in their order.

    Raises:
        ValueError: shapes or dtypes that disagree.
    """
    width, q_width = w.o.shape
    qkv_width, intermediate, dtype = len(w.qkv), w.down.shape[1], w.o.dtype
    return [
        address("input_norm", w.input_norm, (width,), dtype),
        address("qkv", w.qkv, (qkv_width, width), dtype),
        optional_address("qkv_bias", w.qkv_bias, (qkv_width,), dtype),
        optional_address("q_norm", w.q_norm, (head_dim,), dtype),
        optional_address("k_norm", w.k_norm, (head_dim,), dtype),
        address("o", w.o, (width, q_width), dtype),
        optional_address("o_bias", w.o_bias, (width,), dtype),
        address("post_norm", w.post_norm, (width,), dtype),
        address("gate_up", w.gate_up, (2 * intermediate, width), dtype),
        address("down", w.down, (width, intermediate), dtype),
    ]


class NativeLayers:
    """All layers of a decoder; their weights are checked once, here.

    Raises:
        ValueError: layers of unequal shapes or dtypes.
    """

    def __init__(self, layers: Sequence[LayerWeights], rope: Tensor, eps: float):
        self.layers, self.rope, self.eps = tuple(layers), rope, eps
        first = layers[0]
        self.width, self.q_width = first.o.shape
        self.dtype, self.intermediate = first.o.dtype, first.down.shape[1]
        self.number = number_of("o", first.o)
        self.head_dim = 2 * rope.shape[2]
        require_heads(first.qkv, first.o, self.head_dim)
        for layer in layers:
            for name in ("qkv", "o", "down"):
                expected, got = getattr(first, name), getattr(layer, name)
                address(name, got, tuple(expected.shape), expected.dtype)
        rows = [layer_addresses(layer, self.head_dim) for layer in layers]
        self.table = torch.tensor(rows, dtype=torch.int64)
        self.rows = [row.data_ptr() for row in self.table]
        self.num_kv_heads = (len(first.qkv) - self.q_width) // (2 * self.head_dim)
        self.rope_address = rope_address(rope, self.head_dim)

    def __call__(
        self,
        h: Tensor,
        start: int,
        stop: int,
        kv: Tensor,
        nodes: NodeBatch,
        out: Tensor | None = None,
    ) -> Tensor:
        batch, num_nodes, _ = shape = sizes("h", h, 3)
        if not 0 <= start < stop <= len(self.layers):
            raise ValueError(
                f"kv: expected keys and values of some of {len(self.layers)} layers, "
                f"got [{start}, {stop})"
            )
        cache, plane = planes_address("kv", kv, 2 * (stop - start), batch, self.dtype)
        _, _, h_kv, _, head_dim = cache
        width = self.q_width + 2 * h_kv * self.head_dim
        if head_dim != self.head_dim or width != len(self.layers[0].qkv):
            raise ValueError(
                f"kv: expected heads of {self.head_dim} that make {len(self.layers[0].qkv)} rows "
                f"of qkv, got {h_kv} of {head_dim}"
            )
        out = torch.empty_like(h) if out is None else out
        C.decoder_layers(
            self.number,
            address("h", h, (batch, num_nodes, self.width), self.dtype),
            self.rows[start],
            stop - start,
            cache,
            2 * plane,
            self.rope_address,
            nodes_address(nodes, (batch, num_nodes)),
            address("out", out, shape, self.dtype),
            self.width,
            self.q_width // head_dim,
            self.intermediate,
            self.eps,
            torch.get_num_threads(),
        )
        return out
