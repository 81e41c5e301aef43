"""embedding in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, unsupported

__all__ = ["embedding", "unsupported"]


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    batch, num_nodes = sizes("tokens", tokens, 2)
    vocab, width = sizes("weight", weight, 2)
    out = weight.new_empty(batch, num_nodes, width)
    C.embedding(
        address("tokens", tokens, dtype=torch.int64),
        address("weight", weight),
        out.data_ptr(),
        batch * num_nodes,
        width,
        vocab,
    )
    return out
