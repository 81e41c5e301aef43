"""adapter_step in C++ on the CPU: one call."""

import torch
from torch import Tensor

from kangaroo_kernels.adapter_weights import StepWeights
from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import (
    C,
    address,
    kv_address,
    nodes_address,
    number_of,
    rope_address,
)
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
    _, h_kv, _, head_dim = sizes("k_cache", k_cache, 4)
    q_width, dtype = weights.o.shape[1] // head_dim * head_dim, h.dtype
    out = torch.empty_like(h)
    C.adapter_step(
        number_of("h", h),
        address("h", h, None, dtype),
        address("input_norm", weights.input_norm, (width,), dtype),
        address("qkv", weights.qkv, (q_width + 2 * h_kv * head_dim, width), dtype),
        address("o", weights.o, (width, q_width), dtype),
        q_width,
        kv_address(k_cache, v_cache, batch, dtype),
        rope_address(rope, head_dim),
        nodes_address(nodes, (batch, num_nodes)),
        out.data_ptr(),
        width,
        eps,
        torch.get_num_threads(),
    )
    return out
