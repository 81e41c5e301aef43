"""top1_confidence in CUDA C++: the logits never leave a multiprocessor."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import require_head, require_like, sizes
from kangaroo_kernels.cuda_core import allocator, number_of, start_of, stream_of, unsupported
from kangaroo_kernels.draft_head import QUANTIZED, DraftChain, DraftHead
from kangaroo_kernels.kernel_set import UnsupportedError
from kangaroo_kernels.native import C
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
    require_like(h, (("h", h, h.shape), ("norm_weight", norm_weight, (width,))))
    require_head(head, h, 1)
    require_chain(chain, h)
    if head.weight.dtype in QUANTIZED:
        raise UnsupportedError(f"head: no CUDA op reads {head.weight.dtype}")
    number = number_of("h", h)
    tokens = h.new_empty(batch, num_nodes, dtype=torch.int64)
    confidence = h.new_empty(batch, num_nodes, dtype=torch.float32)
    appended = None
    if chain is not None:
        appended = (*map(start_of, chain), *chain.tokens.shape)
    num_ids = 0 if head.token_ids is None else head.num_ids
    with torch.cuda.device(h.device):
        C.top1_confidence_cuda(
            number,
            start_of(h),
            (start_of(head.weight), start_of(head.token_ids), len(head.weight), num_ids, 0),
            start_of(norm_weight),
            start_of(tokens),
            start_of(confidence),
            appended,
            batch,
            num_nodes,
            width,
            eps,
            allocator(h.device),
            stream_of(h),
        )
    return tokens, confidence
