"""draft_logits in Triton: a program multiplies a tile of the head."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.triton_math import (
    COUNTS,
    ROW_TILE,
    launching,
    unsupported,
)
from kangaroo_kernels.triton_norm import normalized
from kangaroo_kernels.triton_rank import BLOCK_V, head_steps, require_ranked, tile_logits

__all__ = ["draft_logits", "unsupported"]


@triton.jit(do_not_specialize=COUNTS)
def _draft_logits_kernel(
    h_ptr,
    weight_ptr,
    scale_ptr,
    ids_ptr,
    out_ptr,  # [M, R] float32
    num_rows,
    num_ids,
    width: tl.constexpr,
    vocab: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_live = row < num_rows
    column = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    logits, _, _ = tile_logits(
        h_ptr, weight_ptr, scale_ptr, ids_ptr, row, row_live, column, num_ids, width, vocab,
        BLOCK_K,
    )  # fmt: skip
    place = row[:, None].to(tl.int64) * num_ids + column[None, :]
    tl.store(out_ptr + place, logits, mask=row_live[:, None] & (column < num_ids)[None, :])


def draft_logits(h: Tensor, head: DraftHead, norm_weight: Tensor, eps: float) -> Tensor:
    require_ranked(h, head, norm_weight, 1)
    num_rows, width = h.shape[0] * h.shape[1], h.shape[2]
    out = h.new_empty(*h.shape[:2], head.num_ids, dtype=torch.float32)
    if num_rows == 0:
        return out
    grid = triton.cdiv(num_rows, ROW_TILE), triton.cdiv(head.num_ids, BLOCK_V)
    _draft_logits_kernel[grid](
        normalized(h, norm_weight, eps), *head, out, num_rows, head.num_ids, width=width,
        vocab=len(head.weight), ROWS=ROW_TILE, BLOCK_V=BLOCK_V,
        **head_steps(h, head),
        **launching(),
    )  # fmt: skip
    return out
