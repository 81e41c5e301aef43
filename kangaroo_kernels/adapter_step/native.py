"""adapter_step in C++ on the CPU: one call."""

import torch
from torch import Tensor

from kangaroo_kernels.adapter_weights import StepWeights
from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, optional_address
from kangaroo_kernels.native import attention_unsupported as unsupported
from kangaroo_kernels.nodes import NodeBatch

__all__ = ["adapter_step", "unsupported"]


def adapter_step(
    h: Tensor,
    weights: StepWeights,
    k_cache: Tensor,
    v_cache: Tensor,
    nodes: NodeBatch,
    rope: Tensor,
    *,
    eps: float,
) -> Tensor:
    batch, num_nodes, width = sizes("h", h, 3)
    _, h_kv, num_slots, head_dim = cache_shape = sizes("k_cache", k_cache, 4)
    h_q = weights.o.shape[1] // head_dim
    num_positions, at = sizes("rope", rope, 3)[1], (batch, num_nodes)
    out = torch.empty_like(h)
    C.adapter_step(
        address("h", h),
        address("input_norm", weights.input_norm, (width,)),
        address("qkv", weights.qkv, ((h_q + 2 * h_kv) * head_dim, width)),
        address("o", weights.o, (width, h_q * head_dim)),
        address("k_cache", k_cache, (batch, h_kv, num_slots, head_dim)),
        address("v_cache", v_cache, cache_shape),
        address("rope", rope, (2, num_positions, head_dim // 2)),
        address("nodes.positions", nodes.positions, at, torch.int32),
        address("nodes.cache_seqlens", nodes.cache_seqlens, (batch,), torch.int32),
        optional_address("nodes.ancestors", nodes.ancestors, at, torch.int64),
        out.data_ptr(),
        batch,
        num_nodes,
        width,
        h_q,
        h_kv,
        head_dim,
        num_slots,
        num_positions,
        nodes.first_node,
        eps,
        head_dim**-0.5,
        torch.get_num_threads(),
    )
    return out
