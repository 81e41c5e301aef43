"""top1_confidence in Triton: the best of the ranking, and the chain's next node."""

from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.triton_head import require_ranked
from kangaroo_kernels.triton_math import unsupported
from kangaroo_kernels.triton_norm import in_front
from kangaroo_kernels.triton_rank import rank_tokens

__all__ = ["top1_confidence", "unsupported"]


def top1_confidence(
    h: Tensor,
    head: DraftHead,
    norm_weight: Tensor,
    eps: float,
    *,
    chain: DraftChain | None = None,
) -> tuple[Tensor, Tensor]:
    require_ranked(h, head, norm_weight, 1)
    rows = in_front(h, norm_weight, eps)
    tokens, confidence = rank_tokens(rows, head, eps, 1, chain)
    return tokens[..., 0], confidence[..., 0]
