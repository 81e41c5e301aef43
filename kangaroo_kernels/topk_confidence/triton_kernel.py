"""topk_confidence in Triton."""

from torch import Tensor

from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.triton_math import unsupported
from kangaroo_kernels.triton_rank import rank_tokens

__all__ = ["topk_confidence", "unsupported"]


def topk_confidence(
    h: Tensor, head: DraftHead, norm_weight: Tensor, eps: float, k: int
) -> tuple[Tensor, Tensor]:
    return rank_tokens(h, head, norm_weight, eps, k)
