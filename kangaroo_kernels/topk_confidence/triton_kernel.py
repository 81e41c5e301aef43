"""topk_confidence in Triton."""

from torch import Tensor

from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.triton_head import require_ranked
from kangaroo_kernels.triton_math import unsupported
from kangaroo_kernels.triton_norm import in_front
from kangaroo_kernels.triton_rank import rank_tokens

__all__ = ["topk_confidence", "unsupported"]


def topk_confidence(
    h: Tensor, head: DraftHead, norm_weight: Tensor, eps: float, k: int
) -> tuple[Tensor, Tensor]:
    require_ranked(h, head, norm_weight, k)
    return rank_tokens(in_front(h, norm_weight, eps), head, eps, k)
