"""embedding in Triton: one program per row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.checks import require, require_within, sizes
from kangaroo_kernels.triton_math import after_previous, launching, pad_to_power_of_2, unsupported

__all__ = ["embedding", "unsupported"]


@triton.jit
def _embedding_kernel(
    tokens_ptr, weight_ptr, out_ptr, vocab, width: tl.constexpr, BLOCK: tl.constexpr
):
    after_previous()
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    token = tl.load(tokens_ptr + row + 0 * column, mask=inside, other=0)
    known = inside & (token >= 0) & (token < vocab)  # memory stays whole
    here = tl.load(weight_ptr + token * width + column, mask=known, other=0.0)
    tl.store(out_ptr + row * width + column, here, mask=inside)


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    batch, num_nodes = sizes("tokens", tokens, 2)
    vocab, width = sizes("weight", weight, 2)
    require("tokens", tokens, (batch, num_nodes), torch.int64, weight.device)
    require("weight", weight, (vocab, width), weight.dtype, weight.device)
    require_within("tokens", tokens, 0, vocab)
    out = weight.new_empty(batch, num_nodes, width)
    if out.numel():
        _embedding_kernel[(batch * num_nodes,)](
            tokens, weight, out, vocab, width=width, BLOCK=pad_to_power_of_2(width), num_warps=4,
            **launching(),
        )  # fmt: skip
    return out
