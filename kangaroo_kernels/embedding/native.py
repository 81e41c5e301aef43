"""embedding in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, number_of, unsupported

__all__ = ["embedding", "unsupported"]


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    batch, num_nodes = sizes("tokens", tokens, 2)
    vocab, width = sizes("weight", weight, 2)
    out = weight.new_empty(batch, num_nodes, width)
    C.embedding(
        number_of("weight", weight),
        address("tokens", tokens, None, torch.int64),
        address("weight", weight, None, weight.dtype),
        out.data_ptr(),
        batch,
        num_nodes,
        vocab,
        width,
    )
    return out
