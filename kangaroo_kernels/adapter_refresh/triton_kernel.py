"""adapter_refresh in Triton, two launches: three norms; projection, rotation, scatter."""

import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.adapter_weights import RefreshWeights
from kangaroo_kernels.checks import require_like, sizes
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.triton_math import (
    after_previous,
    launching,
    pad_to_power_of_2,
    unsupported,
)
from kangaroo_kernels.triton_norm import normalize_row
from kangaroo_kernels.triton_projection import project_and_append
from kangaroo_kernels.triton_rope import check_places

__all__ = ["adapter_refresh", "unsupported"]


@triton.jit
def _normalize_kernel(
    h_ptr,
    h_deep_ptr,
    successor_ptr,
    norm_ptr,
    deep_norm_ptr,
    successor_norm_ptr,
    out_ptr,  # [M, 3 C]
    eps,
    width: tl.constexpr,
    BLOCK: tl.constexpr,
):
    after_previous()
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    out_ptr += (3 * row + part) * width
    if part == 0:
        normalize_row(h_ptr + row * width, norm_ptr, out_ptr, eps, width, BLOCK)
    elif part == 1:
        normalize_row(h_deep_ptr + row * width, deep_norm_ptr, out_ptr, eps, width, BLOCK)
    else:
        normalize_row(successor_ptr + row * width, successor_norm_ptr, out_ptr, eps, width, BLOCK)


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
    h_kv, num_slots, head_dim = sizes("k_cache", k_cache, 4)[1:]
    cache = (batch, h_kv, num_slots, head_dim)
    require_like(
        h,
        (
            ("h", h, shape),
            ("h_deep", h_deep, shape),
            ("successor", successor, shape),
            ("input_norm", weights.input_norm, (width,)),
            ("deep_norm", weights.deep_norm, (width,)),
            ("successor_norm", weights.successor_norm, (width,)),
            ("deep_kv", weights.deep_kv, (2 * h_kv * head_dim, 3 * width)),
            ("k_cache", k_cache, cache),
            ("v_cache", v_cache, cache),
        ),
    )
    check_places(rope, nodes, (batch, num_nodes), k_cache)
    num_rows = batch * num_nodes
    if num_rows == 0:
        return
    *norms, deep_kv = weights
    rows = h.new_empty(num_rows, 3 * width)
    _normalize_kernel[(num_rows, 3)](
        *states, *norms, rows, eps, width=width, BLOCK=pad_to_power_of_2(width), num_warps=4,
        **launching(),
    )  # fmt: skip
    project_and_append(rows, deep_kv, None, (k_cache, v_cache), nodes, rope)
