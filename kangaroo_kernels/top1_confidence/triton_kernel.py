"""top1_confidence in Triton: the logits of a tile of the vocabulary live in registers only."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.checks import require_like, sizes
from kangaroo_kernels.triton_math import (
    ROW_TILE,
    pad_to_power_of_2,
    sums_of_products,
    unsupported,
)

__all__ = ["top1_confidence", "unsupported"]

BLOCK_V = 64


@triton.jit
def _score_kernel(
    h_ptr,
    norm_ptr,
    head_ptr,
    top_ptr,  # [M, tiles] float32: largest logit of the tile
    token_ptr,  # [M, tiles] int32: where it stands
    mass_ptr,  # [M, tiles] float32: sum of exp(logit - top)
    num_rows,
    eps,
    width: tl.constexpr,
    vocab: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    tile = tl.program_id(0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row_live = row < num_rows
    token = tile * BLOCK_V + tl.arange(0, BLOCK_V)
    known = token < vocab
    acc, squares = sums_of_products(
        h_ptr,
        norm_ptr,
        head_ptr,
        row,
        row_live,
        token,
        known,
        0,
        width,
        width,
        width,
        True,
        BLOCK_K,
    )
    logits = acc * tl.rsqrt(squares / width + eps)[:, None]
    logits = tl.where(row_live[:, None] & known[None, :], logits, float("-inf"))
    top = tl.max(logits, axis=1)
    mass = tl.sum(tl.exp(logits - top[:, None]), axis=1)
    place = row.to(tl.int64) * tl.num_programs(0) + tile
    tl.store(top_ptr + place, top, mask=row_live)
    tl.store(token_ptr + place, tile * BLOCK_V + tl.argmax(logits, axis=1), mask=row_live)
    tl.store(mass_ptr + place, mass, mask=row_live)


@triton.jit
def _pick_kernel(
    top_ptr, token_ptr, mass_ptr, best_ptr, confidence_ptr, num_tiles, vocab, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    tile = tl.arange(0, BLOCK)
    live = tile < num_tiles
    place = row * num_tiles + tile
    top = tl.load(top_ptr + place, mask=live, other=float("-inf"))
    highest = tl.max(top, axis=0)
    mass = tl.load(mass_ptr + place, mask=live, other=0.0)
    total = tl.sum(mass * tl.exp(top - highest), axis=0)
    token = tl.load(token_ptr + place, mask=live & (top == highest), other=vocab - 1)
    tl.store(best_ptr + row, tl.min(token, axis=0).to(tl.int64))
    tl.store(confidence_ptr + row, 1.0 / total)


def top1_confidence(
    h: Tensor, head: Tensor, norm_weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    batch, num_nodes, width = sizes("h", h, 3)
    vocab = len(head)
    require_like(
        h,
        (
            ("h", h, (batch, num_nodes, width)),
            ("head", head, (vocab, width)),
            ("norm_weight", norm_weight, (width,)),
        ),
    )
    num_rows, num_tiles = batch * num_nodes, triton.cdiv(vocab, BLOCK_V)
    best = h.new_empty(batch, num_nodes, dtype=torch.int64)
    confidence = h.new_empty(batch, num_nodes, dtype=torch.float32)
    if num_rows == 0:
        return best, confidence
    top, mass = (h.new_empty(num_rows, num_tiles, dtype=torch.float32) for _ in range(2))
    token = h.new_empty(num_rows, num_tiles, dtype=torch.int32)
    _score_kernel[(num_tiles, triton.cdiv(num_rows, ROW_TILE))](
        h, norm_weight, head, top, token, mass, num_rows, eps, width=width, vocab=vocab,
        ROWS=ROW_TILE, BLOCK_V=BLOCK_V, BLOCK_K=min(128, pad_to_power_of_2(width, 16)),
        num_warps=4, num_stages=4, enable_fp_fusion=True,
    )  # fmt: skip
    _pick_kernel[(num_rows,)](
        top, token, mass, best, confidence, num_tiles, vocab, BLOCK=pad_to_power_of_2(num_tiles),
        num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return best, confidence
