"""tree_attention in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, optional_address
from kangaroo_kernels.native import attention_unsupported as unsupported
from kangaroo_kernels.nodes import NodeBatch

__all__ = ["tree_attention", "unsupported"]


def tree_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch, scale: float
) -> Tensor:
    batch, kv_heads, num_slots, head_dim = cache_shape = sizes("k_cache", k_cache, 4)
    num_nodes, q_heads = sizes("q", q, 4)[1:3]
    out = torch.empty_like(q)
    C.tree_attention(
        address("q", q, (batch, num_nodes, q_heads, head_dim)),
        address("k_cache", k_cache),
        address("v_cache", v_cache, cache_shape),
        out.data_ptr(),
        address("nodes.cache_seqlens", nodes.cache_seqlens, (batch,), torch.int32),
        optional_address("nodes.ancestors", nodes.ancestors, (batch, num_nodes), torch.int64),
        batch,
        num_nodes,
        q_heads,
        kv_heads,
        head_dim,
        num_slots,
        nodes.first_node,
        scale,
        torch.get_num_threads(),
    )
    return out
