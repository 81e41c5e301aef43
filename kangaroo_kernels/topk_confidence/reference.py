"""Definition of topk_confidence, in plain PyTorch. Any device."""

from torch import Tensor

from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.reference_math import rank_tokens


def unsupported(target: Target) -> str | None:
    return None


def topk_confidence(
    h: Tensor, head: DraftHead, norm_weight: Tensor, eps: float, k: int
) -> tuple[Tensor, Tensor]:
    return rank_tokens(h, head, norm_weight, eps, k)
