"""rope_append_kv in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, optional_address, unsupported
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
    batch, kv_heads, num_slots, head_dim = cache_shape = sizes("k_cache", k_cache, 4)
    num_nodes, qkv_width = sizes("qkv", qkv, 3)[1:]
    q_heads = max(0, qkv_width // head_dim - 2 * kv_heads)
    num_positions = sizes("rope", rope, 3)[1]
    q = qkv.new_empty(batch, num_nodes, q_heads, head_dim)
    C.rope_append_kv(
        address("qkv", qkv, (batch, num_nodes, (q_heads + 2 * kv_heads) * head_dim)),
        q.data_ptr(),
        address("k_cache", k_cache),
        address("v_cache", v_cache, cache_shape),
        address("rope", rope, (2, num_positions, head_dim // 2)),
        optional_address("q_norm", q_norm, (head_dim,)),
        optional_address("k_norm", k_norm, (head_dim,)),
        address("nodes.positions", nodes.positions, (batch, num_nodes), torch.int32),
        address("nodes.cache_seqlens", nodes.cache_seqlens, (batch,), torch.int32),
        batch,
        num_nodes,
        q_heads,
        kv_heads,
        head_dim,
        num_slots,
        num_positions,
        nodes.first_node,
        eps,
        torch.get_num_threads(),
    )
    return q
