"""top1_confidence in C++ on the CPU: the logits never leave the core's cache."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.native import C, address, head_address, number_of, unsupported
from kangaroo_kernels.tree_checks import require_chain

__all__ = ["top1_confidence", "unsupported"]


def top1_confidence(
    h: Tensor,
    head: DraftHead,
    norm_weight: Tensor,
    eps: float,
    *,
    chain: DraftChain | None = None,
) -> tuple[Tensor, Tensor]:
    batch, num_nodes, width = sizes("h", h, 3)
    appended = None
    if chain is not None:
        require_chain(chain, h)
        appended = (*(tensor.data_ptr() for tensor in chain), *chain.tokens.shape)
    tokens = torch.empty(batch, num_nodes, dtype=torch.int64)
    confidence = torch.empty(batch, num_nodes, dtype=torch.float32)
    C.top1_confidence(
        number_of("h", h),
        address("h", h, None, h.dtype),
        head_address(head, h, 1),
        address("norm_weight", norm_weight, (width,), h.dtype),
        tokens.data_ptr(),
        confidence.data_ptr(),
        appended,
        batch,
        num_nodes,
        width,
        eps,
        torch.get_num_threads(),
    )
    return tokens, confidence
