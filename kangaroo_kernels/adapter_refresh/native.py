"""adapter_refresh in C++ on the CPU: one call."""

import torch
from torch import Tensor

from kangaroo_kernels.adapter_weights import RefreshWeights
from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, unsupported
from kangaroo_kernels.nodes import NodeBatch

__all__ = ["adapter_refresh", "unsupported"]


def adapter_refresh(
    states: tuple[Tensor, Tensor],
    weights: RefreshWeights,
    k_cache: Tensor,
    v_cache: Tensor,
    nodes: NodeBatch,
    rope: Tensor,
    *,
    eps: float,
) -> None:
    h, h_deep = states
    batch, num_nodes, width = shape = sizes("h", h, 3)
    _, h_kv, num_slots, head_dim = cache_shape = sizes("k_cache", k_cache, 4)
    num_positions = sizes("rope", rope, 3)[1]
    C.adapter_refresh(
        address("h", h),
        address("h_deep", h_deep, shape),
        address("input_norm", weights.input_norm, (width,)),
        address("deep_norm", weights.deep_norm, (width,)),
        address("deep_kv", weights.deep_kv, (2 * h_kv * head_dim, 2 * width)),
        address("k_cache", k_cache, (batch, h_kv, num_slots, head_dim)),
        address("v_cache", v_cache, cache_shape),
        address("rope", rope, (2, num_positions, head_dim // 2)),
        address("nodes.positions", nodes.positions, (batch, num_nodes), torch.int32),
        address("nodes.cache_seqlens", nodes.cache_seqlens, (batch,), torch.int32),
        batch,
        num_nodes,
        width,
        h_kv,
        head_dim,
        num_slots,
        num_positions,
        nodes.first_node,
        eps,
        torch.get_num_threads(),
    )
