"""verify_tree in CUDA C++: one launch, which reads the logits of the path alone."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import require, sizes
from kangaroo_kernels.cuda_core import number_of, start_of, stream_of, unsupported
from kangaroo_kernels.native import C
from kangaroo_kernels.verify_tree import Verdict

__all__ = ["unsupported", "verify_tree"]


def verify_tree(logits: Tensor, tokens: Tensor, parents: Tensor) -> Verdict:
    batch, num_nodes, vocab = shape = sizes("logits", logits, 3)
    require("logits", logits, shape, logits.dtype, logits.device)
    require("tokens", tokens, (batch, num_nodes), torch.int64, logits.device)
    require("parents", parents, (batch, num_nodes), torch.int64, logits.device)
    number = number_of("logits", logits)
    verdict = Verdict(
        path=tokens.new_empty(batch, num_nodes),
        path_len=tokens.new_empty(batch, dtype=torch.int32),
        bonus=tokens.new_empty(batch),
    )
    with torch.cuda.device(logits.device):
        C.verify_tree_cuda(
            number,
            *map(start_of, (logits, tokens, parents, *verdict)),
            batch,
            num_nodes,
            vocab,
            stream_of(logits),
        )
    return verdict
