"""What drafters of chains share: how a chain grows by a token, and how tokens are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kangaroo.draft.head import whole_rows
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.sampling.sampler import draws_of
from kangaroo_kernels import KernelSet
from kangaroo_kernels.draft_head import DraftHead


def grow(
    trees: Sequence[DraftTree],
    growing: Sequence[int],
    found: tuple[Tensor, Tensor],
    least: Sequence[float],
    max_depths: Sequence[int],
) -> list[int]:
    """Hang a token below the last of every chain that is `growing`.

    Args:
        found: the tokens behind the newest nodes, and how sure the drafter is: [B, 1] each.
        least: [B] nothing is drafted behind a token that it was less sure of.

    Returns:
        those that go on growing.
    """
    drafted, sure = (x.tolist() for x in found)
    for b in growing:
        trees[b].add(drafted[b][0], parent=len(trees[b]) - 1)
        trees[b].num_passes += 1
    return [b for b in growing if sure[b][0] >= least[b] and len(trees[b]) <= max_depths[b]]


def any_sampled(state: DecodeState) -> bool:
    """Some sequence's tokens are drawn."""
    samplers = [request.sampler for request in state.requests]
    return any(sampler is not None and sampler.do_sample for sampler in samplers)


def drawn(
    kernels: KernelSet,
    state: DecodeState,
    trees: Sequence[DraftTree],
    growing: Sequence[int],
    logits: Tensor,
    head: DraftHead | None = None,
) -> tuple[Tensor, Tensor]:
    """The tokens behind the newest nodes by the drafter's logits [B, R] float32 of the tokens of
    `head`, by default all, and how sure it is, [B, 1] each: drawn where a sequence is sampled, else
    the most probable.

    Where kernels draw, it is as sure of a token as its share of the race.
    """
    samplers = [request.sampler for request in state.requests]
    shaped = {b: s for b in growing if (s := samplers[b]) and s.do_sample and s.draw is None}
    if len(shaped) < len(growing):
        pairs = zip(state.prefix_lens, trees, strict=True)
        places = [[root + len(tree) - 1] for root, tree in pairs]
        positions = torch.tensor(places, dtype=torch.int32, device=logits.device)
        draws, ids = draws_of(samplers, logits.device), None if head is None else head.token_ids
        best, shares = kernels.draw_tokens(logits[:, None], draws, positions, token_ids=ids)
        tokens, confidences = best[..., 0].clamp(min=0), shares[..., 0]  # -1: nothing is finite
    else:
        tokens = torch.zeros(len(trees), 1, dtype=torch.int64, device=logits.device)
        confidences = torch.zeros(len(trees), 1, device=logits.device)
    for b, sampler in shaped.items():
        own, tree = logits[b : b + 1], trees[b]
        whole = own if head is None else whole_rows(own[:, None], head)[:, 0]
        history = state.requests[b].tokens + tree.tokens[1:]
        token, row = sampler.propose(history, whole)
        tree.drawn_from[len(tree) - 1] = row
        tokens[b], confidences[b] = int(token), float(row.max())
    return tokens, confidences
