"""top1_confidence in C++ on the CPU: the logits never leave the core's cache."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, unsupported

__all__ = ["top1_confidence", "unsupported"]


def top1_confidence(
    h: Tensor, head: Tensor, norm_weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    batch, num_nodes, width = sizes("h", h, 3)
    vocab = head.shape[0]
    tokens = torch.empty(batch, num_nodes, dtype=torch.int64)
    confidence = h.new_empty(batch, num_nodes)
    C.top1_confidence(
        address("h", h),
        address("head", head, (vocab, width)),
        address("norm_weight", norm_weight, (width,)),
        tokens.data_ptr(),
        confidence.data_ptr(),
        batch * num_nodes,
        width,
        vocab,
        eps,
        torch.get_num_threads(),
    )
    return tokens, confidence
