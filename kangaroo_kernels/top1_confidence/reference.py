"""Definition of top1_confidence, in plain PyTorch. Any device."""

from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.reference_math import rank_tokens


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


def append(chain: DraftChain, tokens: Tensor, confidence: Tensor) -> None:
    """tokens and confidence [B]: the chains' next nodes, where they have not stopped."""
    capacity = chain.tokens.shape[1]
    for b, (node, stopped) in enumerate(
        zip(chain.num_nodes.tolist(), chain.stopped.tolist(), strict=True)
    ):
        if node >= capacity:
            chain.stopped[b] = 1
        elif stopped == 0 and node > 0:
            chain.tokens[b, node] = tokens[b]
            chain.positions[b, node] = chain.positions[b, node - 1] + 1
            chain.num_nodes[b] = node + 1
            chain.stopped[b] = not (confidence[b] >= chain.threshold[b] and node + 1 < capacity)
