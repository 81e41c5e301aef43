"""adapter_refresh in C++ on the CPU: one call."""

import torch
from torch import Tensor

from kangaroo_kernels.adapter_weights import RefreshWeights
from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import (
    C,
    address,
    kv_address,
    nodes_address,
    number_of,
    rope_address,
    unsupported,
)
from kangaroo_kernels.nodes import NodeBatch

__all__ = ["adapter_refresh", "unsupported"]


def adapter_refresh(
    states: tuple[Tensor, Tensor, Tensor],
    weights: RefreshWeights,
    k_cache: Tensor,
    v_cache: Tensor,
    nodes: NodeBatch,
    rope: Tensor,
    *,
    eps: float,
) -> None:
    h, h_deep, successor = states
    batch, num_nodes, width = shape = sizes("h", h, 3)
    _, h_kv, _, head_dim = sizes("k_cache", k_cache, 4)
    dtype = h.dtype
    C.adapter_refresh(
        number_of("h", h),
        address("h", h, None, dtype),
        address("h_deep", h_deep, shape, dtype),
        address("successor", successor, shape, dtype),
        address("input_norm", weights.input_norm, (width,), dtype),
        address("deep_norm", weights.deep_norm, (width,), dtype),
        address("successor_norm", weights.successor_norm, (width,), dtype),
        address("deep_kv", weights.deep_kv, (2 * h_kv * head_dim, 3 * width), dtype),
        kv_address(k_cache, v_cache, batch, dtype),
        rope_address(rope, head_dim),
        nodes_address(nodes, (batch, num_nodes)),
        width,
        eps,
        torch.get_num_threads(),
    )
