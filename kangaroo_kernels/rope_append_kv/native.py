"""rope_append_kv in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import (
    C,
    address,
    kv_address,
    nodes_address,
    number_of,
    optional_address,
    rope_address,
    unsupported,
)
from kangaroo_kernels.nodes import NodeBatch

__all__ = ["rope_append_kv", "unsupported"]


def rope_append_kv(
    qkv: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    nodes: NodeBatch,
    rope: Tensor,
    *,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    batch, kv_heads, _, head_dim = sizes("k_cache", k_cache, 4)
    num_nodes, qkv_width = sizes("qkv", qkv, 3)[1:]
    q_heads, dtype = max(0, qkv_width // head_dim - 2 * kv_heads), qkv.dtype
    q = qkv.new_empty(batch, num_nodes, q_heads, head_dim)
    C.rope_append_kv(
        number_of("qkv", qkv),
        address("qkv", qkv, (batch, num_nodes, (q_heads + 2 * kv_heads) * head_dim), dtype),
        q.data_ptr(),
        q_heads,
        kv_address(k_cache, v_cache, batch, dtype),
        rope_address(rope, head_dim),
        optional_address("q_norm", q_norm, (head_dim,), dtype),
        optional_address("k_norm", k_norm, (head_dim,), dtype),
        nodes_address(nodes, (batch, num_nodes)),
        eps,
        torch.get_num_threads(),
    )
    return q
