"""tree_attention in Triton: two launches, see `kangaroo_kernels.triton_attention`."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import require, require_like, require_slots, sizes
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.triton_attention import attend, check_cache, unsupported

__all__ = ["tree_attention", "unsupported"]


def tree_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch, scale: float
) -> Tensor:
    batch, num_nodes, h_q, _ = sizes("q", q, 4)
    h_kv, num_slots, head_dim = sizes("k_cache", k_cache, 4)[1:]
    q_shape, cache = (batch, num_nodes, h_q, head_dim), (batch, h_kv, num_slots, head_dim)
    like = (("q", q, q_shape), ("k_cache", k_cache, cache), ("v_cache", v_cache, cache))
    require_like(k_cache, like)
    require("nodes.positions", nodes.positions, (batch, num_nodes), torch.int32, q.device)
    require_slots(nodes, num_slots)
    check_cache(k_cache, h_q, nodes)
    return attend(q, k_cache, v_cache, nodes, scale)
