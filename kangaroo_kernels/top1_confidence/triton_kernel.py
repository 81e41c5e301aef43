"""top1_confidence in Triton: the best of the ranking, and the chain's next node."""

from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.triton_math import unsupported
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
    tokens, confidence = rank_tokens(h, head, norm_weight, eps, 1, chain)
    return tokens[..., 0], confidence[..., 0]
