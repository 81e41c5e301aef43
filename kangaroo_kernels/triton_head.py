"""The draft head in Triton: a program multiplies a tile of it. Shared by draft_logits and by what
ranks tokens whose logits never reach memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.checks import require_head, require_like, sizes
from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.kernel_set import UnsupportedError
from kangaroo_kernels.triton_math import (
    COUNTS,
    ROW_TILE,
    after_previous,
    fetch_ahead,
    launching,
    pad_to_power_of_2,
)
from kangaroo_kernels.triton_norm import InFront, products_behind_norm, squares_block

BLOCK_V = 64
FLOAT8_CAPABILITY = (8, 9)


@triton.jit
def tile_logits(
    h_ptr,
    squares_ptr,  # None: h is normalized
    weight_ptr,
    scale_ptr,
    ids_ptr,
    row,
    row_live,
    column,
    num_ids,
    eps,
    width: tl.constexpr,
    vocab: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SQUARES_BLOCK: tl.constexpr,
):
    """Logits [rows, columns] of rows of h, float32; the columns' tokens, and which are any. A
    kernel begins with this.
    """
    token = column
    known = column < num_ids
    if ids_ptr is not None:
        token = tl.load(ids_ptr + column, mask=known, other=0)
        known &= (token >= 0) & (token < vocab)  # memory stays whole
    fetch_ahead(weight_ptr, token, known, 0, width, 2 * BLOCK_K)
    after_previous()
    logits = products_behind_norm(
        h_ptr, squares_ptr, weight_ptr, row, row_live, token, known, 0, width, eps, width, BLOCK_K,
        SQUARES_BLOCK,
    )  # fmt: skip
    if scale_ptr is not None:
        logits *= tl.load(scale_ptr + token, mask=known, other=0.0)[None, :]
    return logits, token, known


@triton.jit(do_not_specialize=COUNTS)
def _logits_kernel(
    h_ptr,
    squares_ptr,
    weight_ptr,
    scale_ptr,
    ids_ptr,
    out_ptr,  # [M, R] float32
    num_rows,
    num_ids,
    eps,
    width: tl.constexpr,
    vocab: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SQUARES_BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_live = row < num_rows
    column = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    logits, _, _ = tile_logits(
        h_ptr, squares_ptr, weight_ptr, scale_ptr, ids_ptr, row, row_live, column, num_ids, eps,
        width, vocab, BLOCK_K, SQUARES_BLOCK,
    )  # fmt: skip
    place = row[:, None].to(tl.int64) * num_ids + column[None, :]
    tl.store(out_ptr + place, logits, mask=row_live[:, None] & (column < num_ids)[None, :])


def head_steps(rows: Tensor, head: DraftHead) -> dict[str, int]:
    """How a tile of the head is walked through: by what took the least time on an H200; in float32
    by what fits.
    """
    longest, width = 256 if rows.itemsize <= 2 else 16 * head.weight.itemsize, rows.shape[-1]
    block_k = min(longest, pad_to_power_of_2(width, 16))
    squares_columns = squares_block(width)
    return {"BLOCK_K": block_k, "SQUARES_BLOCK": squares_columns, "num_warps": 4, "num_stages": 3}


def logits_of(rows: InFront, head: DraftHead, eps: float) -> Tensor:
    """[B, N, R] float32, of rows [B, N, C] as `in_front` makes them. Checks nothing."""
    h, squares = rows
    num_rows, width = h.shape[0] * h.shape[1], h.shape[2]
    out = h.new_empty(*h.shape[:2], head.num_ids, dtype=torch.float32)
    if num_rows > 0:
        _logits_kernel[(triton.cdiv(num_rows, ROW_TILE), triton.cdiv(head.num_ids, BLOCK_V))](
            h, squares, *head, out, num_rows, head.num_ids, eps, width=width,
            vocab=len(head.weight), ROWS=ROW_TILE, BLOCK_V=BLOCK_V, **head_steps(h, head),
            **launching(),
        )  # fmt: skip
    return out


def require_ranked(h: Tensor, head: DraftHead, norm_weight: Tensor, k: int) -> None:
    """Refuse what no kernel here can read.

    Raises:
        ValueError: names argument, expected and got.
        UnsupportedError: a head in float8 on a GPU that cannot read it.
    """
    width = sizes("h", h, 3)[2]
    require_like(h, (("h", h, h.shape), ("norm_weight", norm_weight, (width,))))
    require_head(head, h, k)
    if head.weight.dtype == torch.float8_e4m3fn and h.is_cuda:
        if (capability := torch.cuda.get_device_capability(h.device)) < FLOAT8_CAPABILITY:
            raise UnsupportedError(
                f"head: float8_e4m3fn needs compute capability {FLOAT8_CAPABILITY}, "
                f"not {capability}"
            )
