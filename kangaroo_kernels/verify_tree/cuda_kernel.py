"""verify_tree in CUDA C++: one launch, which reads the logits of the path alone."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import require, sizes
from kangaroo_kernels.cuda_core import number_of, start_of, stream_of, unsupported
from kangaroo_kernels.native import C
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
    batch, width, vocab = shape = sizes("logits", logits, 3)
    require("logits", logits, shape, logits.dtype, logits.device)
    require("tokens", tokens, (batch, width), torch.int64, logits.device)
    require("parents", parents, (batch, width), torch.int64, logits.device)
    if num_nodes is not None:
        require("num_nodes", num_nodes, (batch,), torch.int32, logits.device)
    for name, tensor in (("successors", successors), ("choices", choices)):
        if tensor is not None:
            require(name, tensor, (batch, width), torch.int64, logits.device)
    number = number_of("logits", logits)
    verdict = verdict_like(tokens, out)
    with torch.cuda.device(logits.device):
        C.verify_tree_cuda(
            number,
            *map(start_of, (logits, tokens, parents)),
            start_of(num_nodes),
            *map(start_of, verdict),
            start_of(successors),
            start_of(choices),
            batch,
            width,
            vocab,
            stream_of(logits),
        )
    return verdict
