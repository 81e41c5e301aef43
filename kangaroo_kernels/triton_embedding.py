"""Rows of the embedding in Triton, one program each, shared by embedding and draft_step."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.triton_math import after_previous, launching, pad_to_power_of_2
from kangaroo_kernels.triton_norm import SQUARES, Then, store_weighed


@triton.jit
def _embedding_kernel(
    tokens_ptr,
    weight_ptr,
    out_ptr,
    then_ptr,  # None: no norm stands behind
    weighed_ptr,
    squares_ptr,
    vocab,
    width: tl.constexpr,
    BLOCK: tl.constexpr,
):
    after_previous()
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    token = tl.load(tokens_ptr + row + 0 * column, mask=inside, other=0)
    known = inside & (token >= 0) & (token < vocab)  # memory stays whole
    here = tl.load(weight_ptr + token * width + column, mask=known, other=0.0)
    tl.store(out_ptr + row * width + column, here, mask=inside)
    if then_ptr is not None:
        rows = row + tl.arange(0, 1)
        store_weighed(here[None, :], rows, rows >= 0, 0, then_ptr, weighed_ptr, squares_ptr, width)


def embed(tokens: Tensor, weight: Tensor, out: Tensor, then: Then | None = None) -> None:
    """out [B, N, C] <- rows `tokens` [B, N] of weight [V, C], and that for the norm behind. One
    launch. Checks nothing.
    """
    vocab, width = weight.shape
    norm, ready = then or (None, (None, None))
    if out.numel():
        _embedding_kernel[(tokens.numel(),)](
            tokens, weight, out, norm, *ready, vocab, width=width,
            BLOCK=pad_to_power_of_2(width, SQUARES.value), num_warps=4, **launching(),
        )  # fmt: skip
