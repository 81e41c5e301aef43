"""adapter_refresh in Triton, two launches: three norms; projection, rotation, scatter."""

import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.adapter_weights import RefreshWeights
from kangaroo_kernels.checks import require_like, sizes
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.triton_gemm import Tiling
from kangaroo_kernels.triton_math import (
    COUNTS,
    ROW_TILE,
    after_previous,
    fetch_ahead,
    launching,
    pad_to_power_of_2,
    sums_of_products,
    unsupported,
)
from kangaroo_kernels.triton_norm import normalize_row
from kangaroo_kernels.triton_rope import check_places, interleaved, place_heads

__all__ = ["adapter_refresh", "unsupported"]


@triton.jit
def _normalize_kernel(
    h_ptr,
    h_deep_ptr,
    successor_ptr,
    norm_ptr,
    deep_norm_ptr,
    successor_norm_ptr,
    out_ptr,  # [M, 3, C]
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


@triton.jit(do_not_specialize=COUNTS)
def _adapter_refresh_kernel(
    x_ptr,
    weight_ptr,
    k_cache_ptr,
    v_cache_ptr,
    rope_ptr,
    positions_ptr,
    seqlens_ptr,
    first_node,
    num_nodes,
    num_rows,
    num_slots,
    num_positions,
    width: tl.constexpr,
    H_KV: tl.constexpr,
    D: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FETCHED: tl.constexpr,
):
    tiles: tl.constexpr = tl.cdiv(D // 2, PAIRS)
    head = tl.program_id(1) // tiles
    first = tl.program_id(1) % tiles * PAIRS
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_live = row < num_rows
    in_head, known = interleaved(first, tl.arange(0, 2 * PAIRS), D)
    weight_row = head * D + in_head
    fetch_ahead(weight_ptr, weight_row, known, 0, width, FETCHED * BLOCK_K)
    after_previous()
    acc = sums_of_products(
        x_ptr, weight_ptr, row, row_live, weight_row, known, 0, width, width, BLOCK_K
    )
    a, b = tl.split(acc.reshape(ROWS, PAIRS, 2))
    pair = first + tl.arange(0, PAIRS)
    place_heads(
        a, b, head, row, row_live[:, None] & (pair < D // 2)[None, :], pair, k_cache_ptr,
        k_cache_ptr, v_cache_ptr, rope_ptr, positions_ptr, seqlens_ptr, first_node, num_nodes,
        num_slots, num_positions, 0, H_KV, D,
    )  # fmt: skip


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
    num_rows, tiling = batch * num_nodes, Tiling.of(len(weights.deep_kv), 3 * width, h.itemsize)
    pairs = tiling.block_n // 2
    if num_rows == 0:
        return
    *norms, deep_kv = weights
    rows = h.new_empty(num_rows, 3, width)
    _normalize_kernel[(num_rows, 3)](
        *states, *norms, rows, eps, width=width, BLOCK=pad_to_power_of_2(width), num_warps=4,
        **launching(),
    )  # fmt: skip
    grid = (triton.cdiv(num_rows, ROW_TILE), 2 * h_kv * triton.cdiv(head_dim // 2, pairs))
    _adapter_refresh_kernel[grid](
        rows, deep_kv, k_cache, v_cache, rope, nodes.positions, nodes.cache_seqlens,
        nodes.first_node, num_nodes, num_rows, num_slots, rope.shape[1], width=3 * width, H_KV=h_kv,
        D=head_dim, PAIRS=pairs, ROWS=ROW_TILE, BLOCK_K=tiling.block_k, FETCHED=tiling.num_fetched,
        num_warps=tiling.num_warps, num_stages=tiling.num_stages, **launching(),
    )  # fmt: skip
