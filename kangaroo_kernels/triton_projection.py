"""Projection, rotation and append in one launch, shared by adapter_step, adapter_refresh and
decoder_layers. A program has pairs of one head, so heads are not normalized here: q_norm and k_norm
ask for whole ones.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.triton_gemm import Tiling
from kangaroo_kernels.triton_math import (
    COUNTS,
    ROW_TILE,
    after_previous,
    fetch_ahead,
    launching,
)
from kangaroo_kernels.triton_norm import InFront, in_front, products_behind_norm, squares_block
from kangaroo_kernels.triton_rope import interleaved, load_turn, place_heads


@triton.jit(do_not_specialize=COUNTS)
def _project_kernel(
    x_ptr,
    x_squares_ptr,  # None: x is as it is
    weight_ptr,
    bias_ptr,
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
    eps,
    width: tl.constexpr,
    H_Q: tl.constexpr,
    H_KV: tl.constexpr,
    D: tl.constexpr,
    PAIRS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FETCHED: tl.constexpr,
    SQUARES_BLOCK: tl.constexpr,
):
    tiles: tl.constexpr = (D // 2 + PAIRS - 1) // PAIRS
    head = tl.program_id(1) // tiles
    first = tl.program_id(1) % tiles * PAIRS
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_live = row < num_rows
    weight_row, known = interleaved(first, tl.arange(0, 2 * PAIRS), D)
    weight_row += head * D
    fetch_ahead(weight_ptr, weight_row, known, 0, width, FETCHED * BLOCK_K)
    after_previous()
    # What is needed behind the sums is on its way while they are made.
    pair = first + tl.arange(0, PAIRS)
    live = row_live[:, None] & (pair < D // 2)[None, :]
    cos, sin = load_turn(rope_ptr, positions_ptr, row, row_live, live, pair, num_positions, D)
    acc = products_behind_norm(
        x_ptr, x_squares_ptr, weight_ptr, row, row_live, weight_row, known, 0, width, eps, width,
        BLOCK_K, SQUARES_BLOCK,
    )  # fmt: skip
    if bias_ptr is not None:
        acc += tl.load(bias_ptr + weight_row, mask=known, other=0.0).to(tl.float32)[None, :]
    rounded = acc.to(k_cache_ptr.dtype.element_ty).to(tl.float32)  # as `linear` leaves them
    a, b = tl.split(rounded.reshape(ROWS, PAIRS, 2))
    place_heads(
        a, b, cos, sin, head, row, live, pair, q_ptr, k_cache_ptr, v_cache_ptr, seqlens_ptr,
        first_node, num_nodes, num_slots, H_Q, H_KV, D,
    )  # fmt: skip


def project_and_append(
    x: Tensor | InFront,
    weight: Tensor,
    q: Tensor | None,
    caches: tuple[Tensor, Tensor],
    nodes: NodeBatch,
    rope: Tensor,
    *,
    bias: Tensor | None = None,
    eps: float = 0.0,
) -> None:
    """Rows x W^T + bias as rope_append_kv places them: x [B, N, C], queries to q [B, N, H_q, D],
    or none to None; `eps` is of the norm of rows whose squares are summed. The sum is never split.
    One launch. Checks nothing.
    """
    rows, squares = in_front(x, None, eps)
    k_cache, v_cache = caches
    _, h_kv, num_slots, head_dim = k_cache.shape
    width, h_q = rows.shape[-1], 0 if q is None else q.shape[2]
    queries = k_cache if q is None else q  # no head is a query then
    num_rows, tiling = nodes.positions.numel(), Tiling.of(len(weight), width, weight.itemsize)
    if num_rows == 0:
        return
    pairs = tiling.block_n // 2
    grid = (triton.cdiv(num_rows, ROW_TILE), (h_q + 2 * h_kv) * triton.cdiv(head_dim // 2, pairs))
    _project_kernel[grid](
        rows, squares, weight, bias, queries, k_cache, v_cache, rope, nodes.positions,
        nodes.cache_seqlens, nodes.first_node, nodes.positions.shape[1], num_rows, num_slots,
        rope.shape[1], eps, width=width, H_Q=h_q, H_KV=h_kv, D=head_dim, PAIRS=pairs, ROWS=ROW_TILE,
        BLOCK_K=tiling.block_k, FETCHED=tiling.num_fetched, SQUARES_BLOCK=squares_block(width),
        num_warps=tiling.num_warps, num_stages=tiling.num_stages, **launching(),
    )  # fmt: skip
