"""Definition of draw_tokens, in plain PyTorch. Any device."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draws import RACE, Draws
from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.philox import WORD, philox
from kangaroo_kernels.reference_math import append


def unsupported(target: Target) -> str | None:
    return None


def draw_tokens(
    logits: Tensor,
    draws: Draws,
    positions: Tensor,
    k: int = 1,
    *,
    token_ids: Tensor | None = None,
    chain: DraftChain | None = None,
) -> tuple[Tensor, Tensor]:
    tokens = torch.arange(logits.shape[2], device=logits.device)
    tokens = tokens if token_ids is None else token_ids.long()
    largest = logits.amax(-1, keepdim=True)
    finite = largest.isfinite()
    x = torch.where(finite, logits, 0.0).double()
    greedy = (draws.temperature == 0)[:, None, None]
    temperature = torch.where(greedy, 1.0, draws.temperature[:, None, None])
    x = (x - x.amax(-1, keepdim=True)) / temperature
    scores = torch.where(greedy, x, x - (-uniform(draws, positions, tokens).log()).log())
    scores = torch.where(greedy | kept(x, draws), scores, -torch.inf)
    order = scores.sort(dim=-1, descending=True, stable=True).indices  # ties: the lowest first
    best = order[..., :k]
    shares = (scores.softmax(-1).gather(-1, best) * finite).float()
    drawn = torch.where(finite, tokens[best], -1)
    if chain is not None:
        append(chain, drawn[:, -1, 0].clamp(min=0), shares[:, -1, 0])
    return drawn, shares


def uniform(draws: Draws, positions: Tensor, tokens: Tensor) -> Tensor:
    """The numbers [B, N, R] float64 of the tokens [R] behind nodes at `positions`: odd multiples of
    2^-53, so that both logarithms are finite.
    """
    position, sequence = positions.long()[..., None] + 1, draws.sequence[:, None, None]
    seed = draws.seed[:, None, None]
    counter = torch.broadcast_tensors(position, sequence, torch.full_like(sequence, RACE), tokens)
    high, low, _, _ = philox(tuple(counter), (seed & WORD, seed >> 32 & WORD))
    number: Tensor = (high >> 5 << 26 | low >> 6 | 1).double() * 2.0**-53
    return number


def kept(x: Tensor, draws: Draws) -> Tensor:
    """Which tokens of rows x [B, N, R] the warps keep."""
    ordered = x.sort(-1, descending=True).values
    top_k = torch.where(draws.top_k > 0, draws.top_k, x.shape[2]).clamp(max=x.shape[2])
    least = ordered.gather(-1, (top_k - 1).long()[:, None, None].expand(*x.shape[:2], 1))
    weights = torch.where(ordered >= least, ordered, -torch.inf).exp()
    sums = torch.nn.functional.pad(weights.cumsum(-1), (1, 0))
    first_alike = torch.searchsorted(-ordered, -ordered)  # nothing in front is as improbable
    in_front = sums.gather(-1, first_alike)
    top_p = draws.top_p[:, None, None]  # 1: no sum decides, for it may be rounded to that of all
    nucleus = (in_front < top_p * sums[..., -1:]) | (top_p == 1) | (first_alike == 0)
    smallest = torch.where(nucleus, ordered, torch.inf).amin(-1, keepdim=True)
    return (x >= least) & (x >= smallest) & (x.exp() >= draws.min_p[:, None, None])
