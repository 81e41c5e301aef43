"""topk_confidence in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.native import C, address, head_address, number_of, unsupported

__all__ = ["topk_confidence", "unsupported"]


def topk_confidence(
    h: Tensor, head: DraftHead, norm_weight: Tensor, eps: float, k: int
) -> tuple[Tensor, Tensor]:
    batch, num_nodes, width = sizes("h", h, 3)
    h_address, ranked = address("h", h, None, h.dtype), head_address(head, h, k)
    tokens = torch.empty(batch, num_nodes, k, dtype=torch.int64)
    confidence = torch.empty(batch, num_nodes, k, dtype=torch.float32)
    C.topk_confidence(
        number_of("h", h),
        h_address,
        ranked,
        address("norm_weight", norm_weight, (width,), h.dtype),
        tokens.data_ptr(),
        confidence.data_ptr(),
        batch,
        num_nodes,
        width,
        k,
        eps,
        torch.get_num_threads(),
    )
    return tokens, confidence
