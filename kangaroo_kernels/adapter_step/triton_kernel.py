"""adapter_step in Triton, five launches, the first for the norm (see triton_adapter.py)."""

from torch import Tensor

from kangaroo_kernels.adapter_weights import StepWeights
from kangaroo_kernels.checks import require_cache, require_like, sizes
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.triton_adapter import adapted
from kangaroo_kernels.triton_attention import unsupported
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
    return adapted(h, None, weights, (k_cache, v_cache), nodes, rope, eps=eps)
