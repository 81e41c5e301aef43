"""Skinny matrix products, shared by linear and gated_mlp: few rows, every weight read once.

The cost is the weight's bytes, so 1 to 16 rows take nearly the same time and, by the fixed tile and
the fixed split of the sum, have the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.triton_math import (
    COUNTS,
    ROW_TILE,
    after_previous,
    fetch_ahead,
    launching,
    pad_to_power_of_2,
)
from kangaroo_kernels.triton_norm import (
    InFront,
    Then,
    in_front,
    products_behind_norm,
    squares_block,
    store_weighed,
)

WAVE = 256  # programs: about two for each multiprocessor of a large GPU


@dataclass(frozen=True)
class Tiling:
    """How a weight's shape is cut. Never a function of the number of rows: bits depend on it.

    Attributes:
        block_n: outputs of a program; of a gate and its up one.
        num_fetched: steps of `block_k` columns that are called to L2 while the kernel waits.
    """

    block_n: int
    block_k: int
    split_k: int
    num_warps: int
    num_stages: int
    num_fetched: int

    @classmethod
    def of(cls, num_out: int, width: int, itemsize: int, *, gated: bool = False) -> Tiling:
        """16 rows of the weight, as long as two warps can hold ahead: memory likes long pieces. Of
        a head 64 rows, for then x is read less often. Where tiles are few, a program has more under
        way; where they are too few, the sums over columns are split.

        By what took the least time on an H200 among six to nine tilings of each product of
        Vicuna-7B and Llama-3.1-8B in bfloat16.
        """
        is_head = not gated and num_out >= 64 * WAVE
        block_n = 64 if is_head else 8 if gated else 16
        num_tiles = -(-num_out // block_n)
        is_few, is_wide = num_tiles <= WAVE, itemsize > 2
        block_k = min(128 if is_wide else 256 if is_head else 512, pad_to_power_of_2(width, 16))
        split_k = 1 if gated else max(1, min(8, WAVE // num_tiles, width // (4 * block_k)))
        num_warps = 4 if is_head or is_wide else 2
        return cls(block_n, block_k, split_k, num_warps, 4 if is_few else 3, 4 if is_few else 2)


@dataclass(frozen=True)
class Epilogue:
    """What stands around the product; the absent parts are left out.

    Attributes:
        norm_weight: [C], with eps: RMSNorm in front; of rows that are `Weighed`, None.
        bias: [O]; residual: [..., O].
        gated: the weight is [2 O, C], gate rows first, and silu(gate) * up is the result.
        then: where the result is made ready for a norm [O] behind it.
    """

    norm_weight: Tensor | None = None
    eps: float = 0.0
    bias: Tensor | None = None
    residual: Tensor | None = None
    gated: bool = False
    then: Then | None = None


@triton.jit
def _store_rows(
    acc,
    row,
    row_live,
    first,
    bias_ptr,
    residual_ptr,
    out_ptr,
    then_ptr,
    weighed_ptr,
    squares_ptr,
    num_out: tl.constexpr,
):
    """Columns from `first` on: out <- residual + acc + bias, and that for the norm behind."""
    column = first + tl.arange(0, acc.shape[1])
    live = row_live[:, None] & (column < num_out)[None, :]
    if bias_ptr is not None:
        acc += tl.load(bias_ptr + column, mask=column < num_out, other=0.0).to(tl.float32)[None, :]
    place = row[:, None].to(tl.int64) * num_out + column[None, :]
    if residual_ptr is not None:
        acc += tl.load(residual_ptr + place, mask=live, other=0.0).to(tl.float32)
    out = acc.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + place, out, mask=live)
    if then_ptr is not None:
        store_weighed(out, row, row_live, first, then_ptr, weighed_ptr, squares_ptr, num_out)


@triton.jit(do_not_specialize=COUNTS)
def _product_kernel(
    x_ptr,
    x_squares_ptr,  # None: x is as it is
    weight_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    then_ptr,
    weighed_ptr,
    squares_ptr,
    part_ptr,  # [SPLIT_K, M, O] float32, or None: the sum is not split
    num_rows,
    eps,
    width: tl.constexpr,
    num_out: tl.constexpr,
    GATED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLIT_K: tl.constexpr,
    FETCHED: tl.constexpr,
    SQUARES_BLOCK: tl.constexpr,
):
    # Tiles of rows stand side by side in the grid: all but the first find the weights in L2.
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_live = row < num_rows
    split = tl.program_id(2)
    per_split: tl.constexpr = (width + BLOCK_K * SPLIT_K - 1) // (BLOCK_K * SPLIT_K) * BLOCK_K
    k_start = split * per_split
    k_stop = tl.minimum(k_start + per_split, width)
    first = tl.program_id(1) * BLOCK_N
    if GATED:  # neighbouring lanes: a gate and its up
        lane = tl.arange(0, 2 * BLOCK_N)
        known = first + lane // 2 < num_out
        weight_row = (lane % 2) * num_out + first + lane // 2
    else:
        weight_row = first + tl.arange(0, BLOCK_N)
        known = weight_row < num_out
    fetch_ahead(weight_ptr, weight_row, known, k_start, width, FETCHED * BLOCK_K)
    after_previous()
    acc = products_behind_norm(
        x_ptr, x_squares_ptr, weight_ptr, row, row_live, weight_row, known, k_start, k_stop, eps,
        width, BLOCK_K, SQUARES_BLOCK,
    )  # fmt: skip
    if part_ptr is None:
        if GATED:
            gate, up = tl.split(acc.reshape(ROWS, BLOCK_N, 2))
            acc = gate / (1.0 + tl.exp(-gate)) * up
        _store_rows(
            acc, row, row_live, first, bias_ptr, residual_ptr, out_ptr, then_ptr, weighed_ptr,
            squares_ptr, num_out,
        )  # fmt: skip
    else:
        column = first + tl.arange(0, BLOCK_N)
        live = row_live[:, None] & (column < num_out)[None, :]
        part_row = split.to(tl.int64) * num_rows + row
        tl.store(part_ptr + part_row[:, None] * num_out + column[None, :], acc, mask=live)


@triton.jit(do_not_specialize=COUNTS)
def _sum_splits_kernel(
    part_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    then_ptr,
    weighed_ptr,
    squares_ptr,
    num_rows,
    num_out: tl.constexpr,
    SPLIT_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The partial sums of one row in the order of the splits, and what stands behind."""
    after_previous()
    row = tl.program_id(0) + tl.arange(0, 1)
    first = tl.program_id(1) * BLOCK_N
    column = first + tl.arange(0, BLOCK_N)
    live = (column < num_out)[None, :]
    acc = tl.zeros((1, BLOCK_N), tl.float32)
    for split in tl.static_range(SPLIT_K):
        part_row = tl.full((1,), split, tl.int64) * num_rows + row
        acc += tl.load(
            part_ptr + part_row[:, None] * num_out + column[None, :], mask=live, other=0.0
        )
    _store_rows(
        acc, row, row < num_rows, first, bias_ptr, residual_ptr, out_ptr, then_ptr, weighed_ptr,
        squares_ptr, num_out,
    )  # fmt: skip


def product(x: Tensor | InFront, weight: Tensor, around: Epilogue, out: Tensor) -> None:
    """out <- residual + f(rms_norm(x) W^T) + bias: x [..., C], out [..., O]; f is the gate, or
    nothing.

    One launch; one more for a norm that nobody has seen to, and one where the sum is split. Checks
    nothing.
    """
    rows, squares = in_front(x, around.norm_weight, around.eps)
    width, num_out = rows.shape[-1], out.shape[-1]
    num_rows = rows.shape[:-1].numel()
    if num_rows == 0:
        return
    tiling = Tiling.of(num_out, width, weight.itemsize, gated=around.gated)
    split_k, part = tiling.split_k, None
    if split_k > 1:
        part = rows.new_empty(split_k, num_rows, num_out, dtype=torch.float32)
    grid = (triton.cdiv(num_rows, ROW_TILE), triton.cdiv(num_out, tiling.block_n), split_k)
    then, ready = around.then or (None, (None, None))
    behind = around.bias, around.residual, out, then, *ready
    _product_kernel[grid](
        rows, squares, weight, *behind, part, num_rows, around.eps, width=width, num_out=num_out,
        GATED=around.gated, ROWS=ROW_TILE, BLOCK_N=tiling.block_n, BLOCK_K=tiling.block_k,
        SPLIT_K=split_k, FETCHED=tiling.num_fetched,
        SQUARES_BLOCK=squares_block(width),
        num_warps=tiling.num_warps, num_stages=tiling.num_stages, **launching(),
    )  # fmt: skip
    if part is not None:
        _sum_splits_kernel[(num_rows, triton.cdiv(num_out, 512))](
            part, *behind, num_rows, num_out=num_out, SPLIT_K=split_k, BLOCK_N=512, num_warps=4,
            **launching(),
        )  # fmt: skip
