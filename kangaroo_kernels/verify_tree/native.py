"""verify_tree in C++ on the CPU: reads the logits of the path alone."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, number_of, optional_address, unsupported
from kangaroo_kernels.tree_checks import verdict_like
from kangaroo_kernels.verify_tree import Verdict

__all__ = ["unsupported", "verify_tree"]


def verify_tree(
    logits: Tensor,
    tokens: Tensor,
    parents: Tensor,
    num_nodes: Tensor | None = None,
    *,
    out: Verdict | None = None,
    successors: Tensor | None = None,
    choices: Tensor | None = None,
) -> Verdict:
    batch, width, vocab = sizes("logits", logits, 3)
    verdict = verdict_like(tokens, out)
    C.verify_tree(
        number_of("logits", logits),
        address("logits", logits, None, logits.dtype),
        address("tokens", tokens, (batch, width), torch.int64),
        address("parents", parents, (batch, width), torch.int64),
        optional_address("num_nodes", num_nodes, (batch,), torch.int32),
        verdict.path.data_ptr(),
        verdict.path_len.data_ptr(),
        verdict.bonus.data_ptr(),
        optional_address("successors", successors, (batch, width), torch.int64),
        optional_address("choices", choices, (batch, width), torch.int64),
        batch,
        width,
        vocab,
    )
    return verdict
