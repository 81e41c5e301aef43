"""adapter_step in Triton, five launches: norm; projection, rotation and append; attention (two);
output projection and residual (a sixth where its sum is split: few outputs of many columns).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.adapter_weights import StepWeights
from kangaroo_kernels.checks import require_cache, require_like, sizes
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.triton_attention import attend, unsupported
from kangaroo_kernels.triton_gemm import Epilogue, Tiling, product
from kangaroo_kernels.triton_math import (
    COUNTS,
    ROW_TILE,
    after_previous,
    fetch_ahead,
    launching,
    sums_of_products,
)
from kangaroo_kernels.triton_norm import normalized
from kangaroo_kernels.triton_rope import check_places, interleaved, place_heads

__all__ = ["adapter_step", "unsupported"]


@triton.jit(do_not_specialize=COUNTS)
def _project_and_append_kernel(
    x_ptr,
    weight_ptr,
    q_ptr,
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
    H_Q: tl.constexpr,
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
    weight_row, known = interleaved(first, tl.arange(0, 2 * PAIRS), D)
    weight_row += head * D
    fetch_ahead(weight_ptr, weight_row, known, 0, width, FETCHED * BLOCK_K)
    after_previous()
    acc = sums_of_products(
        x_ptr, weight_ptr, row, row_live, weight_row, known, 0, width, width, BLOCK_K
    )
    a, b = tl.split(acc.reshape(ROWS, PAIRS, 2))
    pair = first + tl.arange(0, PAIRS)
    place_heads(
        a, b, head, row, row_live[:, None] & (pair < D // 2)[None, :], pair, q_ptr, k_cache_ptr,
        v_cache_ptr, rope_ptr, positions_ptr, seqlens_ptr, first_node, num_nodes, num_slots,
        num_positions, H_Q, H_KV, D,
    )  # fmt: skip


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
    num_rows, tiling = batch * num_nodes, Tiling.of(len(weights.qkv), width, h.itemsize)
    pairs = tiling.block_n // 2
    grid = (triton.cdiv(num_rows, ROW_TILE), (h_q + 2 * h_kv) * triton.cdiv(head_dim // 2, pairs))
    rows = normalized(h, weights.input_norm, eps)
    _project_and_append_kernel[grid](
        rows, weights.qkv, q, k_cache, v_cache, rope, nodes.positions, nodes.cache_seqlens,
        nodes.first_node, num_nodes, num_rows, num_slots, rope.shape[1],
        width=width, H_Q=h_q, H_KV=h_kv, D=head_dim, PAIRS=pairs, ROWS=ROW_TILE,
        BLOCK_K=tiling.block_k, FETCHED=tiling.num_fetched, num_warps=tiling.num_warps,
        num_stages=tiling.num_stages, **launching(),
    )  # fmt: skip
    heads = attend(q, k_cache, v_cache, nodes, head_dim**-0.5)
    out = torch.empty_like(h)
    product(heads.flatten(2), weights.o, Epilogue(residual=h), out)
    return out
