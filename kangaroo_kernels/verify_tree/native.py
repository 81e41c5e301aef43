"""verify_tree in C++ on the CPU: reads the logits of the path alone."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, number_of, unsupported
from kangaroo_kernels.verify_tree import Verdict

__all__ = ["unsupported", "verify_tree"]


def verify_tree(logits: Tensor, tokens: Tensor, parents: Tensor) -> Verdict:
    batch, num_nodes, vocab = sizes("logits", logits, 3)
    verdict = Verdict(
        path=torch.empty((batch, num_nodes), dtype=torch.int64),
        path_len=torch.empty(batch, dtype=torch.int32),
        bonus=torch.empty(batch, dtype=torch.int64),
    )
    C.verify_tree(
        number_of("logits", logits),
        address("logits", logits, None, logits.dtype),
        address("tokens", tokens, (batch, num_nodes), torch.int64),
        address("parents", parents, (batch, num_nodes), torch.int64),
        verdict.path.data_ptr(),
        verdict.path_len.data_ptr(),
        verdict.bonus.data_ptr(),
        batch,
        num_nodes,
        vocab,
    )
    return verdict
