"""draft_logits in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.native import C, address, head_address, number_of, unsupported

__all__ = ["draft_logits", "unsupported"]


def draft_logits(h: Tensor, head: DraftHead, norm_weight: Tensor, eps: float) -> Tensor:
    batch, num_nodes, width = sizes("h", h, 3)
    h_address, read = address("h", h, None, h.dtype), head_address(head, h, 1)
    out = torch.empty(batch, num_nodes, head.num_ids, dtype=torch.float32)
    C.draft_logits(
        number_of("h", h),
        h_address,
        read,
        address("norm_weight", norm_weight, (width,), h.dtype),
        out.data_ptr(),
        batch,
        num_nodes,
        width,
        eps,
        torch.get_num_threads(),
    )
    return out
