"""draft_logits in Triton, two launches: norm, head."""

from torch import Tensor

from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.triton_head import logits_of, require_ranked
from kangaroo_kernels.triton_math import unsupported
from kangaroo_kernels.triton_norm import in_front

__all__ = ["draft_logits", "unsupported"]


def draft_logits(h: Tensor, head: DraftHead, norm_weight: Tensor, eps: float) -> Tensor:
    require_ranked(h, head, norm_weight, 1)
    return logits_of(in_front(h, norm_weight, eps), head, eps)
