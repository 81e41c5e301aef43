"""Definition of top1_confidence, in plain PyTorch. Any device."""

from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.reference_math import append, rank_tokens


def unsupported(target: Target) -> str | None:
    return None


def top1_confidence(
    h: Tensor,
    head: DraftHead,
    norm_weight: Tensor,
    eps: float,
    *,
    chain: DraftChain | None = None,
) -> tuple[Tensor, Tensor]:
    best, probabilities = rank_tokens(h, head, norm_weight, eps, 1)
    tokens, confidence = best[..., 0], probabilities[..., 0]
    if chain is not None:
        append(chain, tokens[:, -1], confidence[:, -1])
    return tokens, confidence
