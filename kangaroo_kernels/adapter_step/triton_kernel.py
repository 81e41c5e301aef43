"""adapter_step in Triton, five launches: norm; projection, rotation and append; attention (two);
output projection and residual (a sixth where its sum is split: few outputs of many columns).
"""

import torch
from torch import Tensor

from kangaroo_kernels.adapter_weights import StepWeights
from kangaroo_kernels.checks import require_cache, require_like, sizes
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.triton_attention import attend, unsupported
from kangaroo_kernels.triton_gemm import Epilogue, product
from kangaroo_kernels.triton_norm import normalized
from kangaroo_kernels.triton_projection import project_and_append
from kangaroo_kernels.triton_rope import check_places

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
    h_kv, num_slots, head_dim = sizes("k_cache", k_cache, 4)[1:]
    h_q = sizes("o", weights.o, 2)[1] // head_dim
    cache = (batch, h_kv, num_slots, head_dim)
    require_like(
        h,
        (
            ("h", h, (batch, num_nodes, width)),
            ("input_norm", weights.input_norm, (width,)),
            ("qkv", weights.qkv, ((h_q + 2 * h_kv) * head_dim, width)),
            ("o", weights.o, (width, h_q * head_dim)),
            ("k_cache", k_cache, cache),
            ("v_cache", v_cache, cache),
        ),
    )
    check_places(rope, nodes, (batch, num_nodes), k_cache)
    require_cache(k_cache, h_q, nodes)
    q = h.new_empty(batch, num_nodes, h_q, head_dim)
    if num_nodes == 0:
        return torch.empty_like(h)
    rows, caches = normalized(h, weights.input_norm, eps), (k_cache, v_cache)
    project_and_append(rows, weights.qkv, q, caches, nodes, rope)
    heads = attend(q, k_cache, v_cache, nodes, head_dim**-0.5)
    out = torch.empty_like(h)
    product(heads.flatten(2), weights.o, Epilogue(residual=h), out)
    return out
