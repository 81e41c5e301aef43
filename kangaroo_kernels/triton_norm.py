"""RMSNorm in Triton, shared by rms_norm and what has a norm in front: one program per row.

Inside a product it would cost more than its launch: with rows that were normalized on their way to
the tensor cores, and all that they need fetched ahead, a product of Llama-3.1-8B moved 29 % of a
copy's bandwidth on an H200; without, and two microseconds for a launch of the norm, 74 %.

So in front of a product a norm is cut in two: (x / rms(x) * w) W^T = ((x * w) W^T) / rms(x). Who
makes x multiplies it by w and sums its squares, a few columns at a time (`Weighed`); who
multiplies by W divides by the root mean square in the end. In bfloat16 alone, which has float32's
range, and whose squares are exact in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.triton_math import (
    after_previous,
    launching,
    pad_to_power_of_2,
    sums_of_products,
)

SQUARES = tl.constexpr(16)  # columns whose squares are summed together


class Weighed(NamedTuple):
    """Rows x in front of a product, between the halves of their norm.

    Attributes:
        rows: [..., C], x times the norm's weight.
        squares: [M, ceil(C / SQUARES)] float32, sums of x^2 over so many columns.
    """

    rows: Tensor
    squares: Tensor


# The weight of the norm behind, and where rows are made ready for it.
Then = tuple[Tensor, Weighed]

# What a product multiplies, and sums of squares by which it divides what comes out, if any.
InFront = tuple[Tensor, Tensor | None]


@triton.jit
def _rms_norm_kernel(x_ptr, weight_ptr, out_ptr, eps, width: tl.constexpr, BLOCK: tl.constexpr):
    after_previous()
    row = tl.program_id(0).to(tl.int64)
    normalize_row(x_ptr + row * width, weight_ptr, out_ptr + row * width, eps, width, BLOCK)


@triton.jit
def normalize_row(x_ptr, weight_ptr, out_ptr, eps, width: tl.constexpr, BLOCK: tl.constexpr):
    """out <- rms_norm(x) of one row each."""
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(x_ptr + column, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    out = x * tl.rsqrt(tl.sum(x * x) / width + eps) * weight
    tl.store(out_ptr + column, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def store_weighed(x, row, row_live, first, norm_ptr, rows_ptr, squares_ptr, width: tl.constexpr):
    """Of columns [first, first + N) of rows x [R, N], their products with the norm's weight, and
    the sums of their squares. `first` and N are multiples of SQUARES; behind `width` stands 0.
    Neighbours are summed first, so the bits do not depend on where a kernel holds x.
    """
    NUM_SQUARES: tl.constexpr = (width + SQUARES - 1) // SQUARES
    column = first + tl.arange(0, x.shape[1])
    live = row_live[:, None] & (column < width)[None, :]
    x = x.to(tl.float32)
    weight = tl.load(norm_ptr + column, mask=column < width, other=0.0).to(tl.float32)
    place = row[:, None].to(tl.int64) * width + column[None, :]
    tl.store(rows_ptr + place, (x * weight[None, :]).to(rows_ptr.dtype.element_ty), mask=live)
    sums = x * x
    for _ in tl.static_range(4):
        left, right = tl.split(sums.reshape(sums.shape[0], sums.shape[1] // 2, 2))
        sums = left + right
    part = first // SQUARES + tl.arange(0, x.shape[1] // SQUARES)
    place = row[:, None].to(tl.int64) * NUM_SQUARES + part[None, :]
    tl.store(squares_ptr + place, sums, mask=row_live[:, None] & (part < NUM_SQUARES)[None, :])


@triton.jit
def _load_squares(squares_ptr, row, row_live, width: tl.constexpr, BLOCK: tl.constexpr):
    """Those of rows [R], [R, BLOCK] float32; of wide rows every BLOCK of them added up. Where that
    is all, nothing waits here for memory.
    """
    NUM_SQUARES: tl.constexpr = (width + SQUARES - 1) // SQUARES
    part = tl.arange(0, BLOCK)
    place = row[:, None].to(tl.int64) * NUM_SQUARES + part[None, :]
    live = row_live[:, None] & (part < NUM_SQUARES)[None, :]
    squares = tl.load(squares_ptr + place, mask=live, other=0.0)
    for first in tl.static_range(BLOCK, NUM_SQUARES, BLOCK):
        live = row_live[:, None] & (part < NUM_SQUARES - first)[None, :]
        squares += tl.load(squares_ptr + place + first, mask=live, other=0.0)
    return squares


@triton.jit
def products_behind_norm(
    x_ptr,
    squares_ptr,  # None: x is as it is
    weight_ptr,
    row,
    row_live,
    weight_row,
    weight_live,
    k_start,
    k_stop,
    eps,
    width: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SQUARES_BLOCK: tl.constexpr,
):
    """`sums_of_products`, and the second half of the norm: (x * w) W^T divided by the root mean
    square of x, whose squares are on their way while the sums are made.
    """
    if squares_ptr is not None:
        squares = _load_squares(squares_ptr, row, row_live, width, SQUARES_BLOCK)
    acc = sums_of_products(
        x_ptr, weight_ptr, row, row_live, weight_row, weight_live, k_start, k_stop, width, BLOCK_K
    )
    if squares_ptr is not None:
        acc = acc * tl.rsqrt(tl.sum(squares, axis=1) / width + eps)[:, None]
    return acc


@triton.jit
def _weigh_kernel(
    x_ptr, weight_ptr, rows_ptr, squares_ptr, width: tl.constexpr, BLOCK: tl.constexpr
):
    after_previous()
    row = tl.program_id(0) + tl.arange(0, 1)
    column = tl.arange(0, BLOCK)
    place = row[:, None].to(tl.int64) * width + column[None, :]
    x = tl.load(x_ptr + place, mask=(column < width)[None, :], other=0.0)
    store_weighed(x, row, row >= 0, 0, weight_ptr, rows_ptr, squares_ptr, width)


def squares_block(width: int) -> int:
    """BLOCK of _load_squares: no more than stay in registers while sums are made."""
    return min(256, pad_to_power_of_2(triton.cdiv(width, SQUARES.value)))


def new_weighed(x: Tensor) -> Weighed:
    """Room for what becomes of rows x [..., C]."""
    num_rows, width = x.shape[:-1].numel(), x.shape[-1]
    squares = x.new_empty(num_rows, triton.cdiv(width, SQUARES.value), dtype=torch.float32)
    return Weighed(torch.empty_like(x), squares)


def weighed(x: Tensor, weight: Tensor) -> Weighed:
    """The first half of a norm, of rows that nobody has weighed as they were made; one launch."""
    width, out = x.shape[-1], new_weighed(x)
    if x.numel():
        _weigh_kernel[(x.numel() // width,)](
            x, weight, *out, width=width, BLOCK=pad_to_power_of_2(width, SQUARES.value),
            num_warps=4, **launching(),
        )  # fmt: skip
    return out


def in_front(x: Tensor | InFront, weight: Tensor | None, eps: float) -> InFront:
    """Rows x as the norm in front of a product leaves them: none, one launch, or x as it is where
    that has been done.
    """
    if not isinstance(x, Tensor):
        return x
    if weight is None:
        return x, None
    if x.dtype == torch.bfloat16:
        return weighed(x, weight)
    return normalized(x, weight, eps), None


def normalized(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """rms_norm in one launch. Checks nothing."""
    width = x.shape[-1]
    out = x.new_empty(x.shape)
    if x.numel():
        _rms_norm_kernel[(x.numel() // width,)](
            x, weight, out, eps, width=width, BLOCK=pad_to_power_of_2(width), num_warps=4,
            **launching(),
        )  # fmt: skip
    return out
