"""verify_tree in CUDA C++: one launch, which reads the logits of the path alone."""

import torch
from torch import Tensor

from kangaroo_kernels.cuda_core import number_of, start_of, stream_of, unsupported
from kangaroo_kernels.native import C
from kangaroo_kernels.tree_checks import require_verification, verdict_like
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
    trees = tokens, parents
    batch, width, vocab = require_verification(logits, trees, num_nodes, successors, choices)
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
