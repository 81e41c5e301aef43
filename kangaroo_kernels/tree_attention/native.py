"""tree_attention in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, kv_address, nodes_address, number_of
from kangaroo_kernels.native import attention_unsupported as unsupported
from kangaroo_kernels.nodes import NodeBatch

__all__ = ["tree_attention", "unsupported"]


def tree_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch, scale: float
) -> Tensor:
    batch, _, _, head_dim = sizes("k_cache", k_cache, 4)
    num_nodes, q_heads = sizes("q", q, 4)[1:3]
    out = torch.empty_like(q)
    C.tree_attention(
        number_of("q", q),
        address("q", q, (batch, num_nodes, q_heads, head_dim), q.dtype),
        q_heads,
        kv_address(k_cache, v_cache, batch, q.dtype),
        out.data_ptr(),
        nodes_address(nodes, (batch, num_nodes)),
        scale,
        torch.get_num_threads(),
    )
    return out
