"""embedding in Triton."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import require, require_within, sizes
from kangaroo_kernels.triton_embedding import embed
from kangaroo_kernels.triton_math import unsupported

__all__ = ["embedding", "unsupported"]


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    batch, num_nodes = sizes("tokens", tokens, 2)
    vocab, width = sizes("weight", weight, 2)
    require("tokens", tokens, (batch, num_nodes), torch.int64, weight.device)
    require("weight", weight, (vocab, width), weight.dtype, weight.device)
    require_within("tokens", tokens, 0, vocab)
    out = weight.new_empty(batch, num_nodes, width)
    embed(tokens, weight, out)
    return out
