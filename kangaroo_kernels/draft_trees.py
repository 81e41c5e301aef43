"""Trees of drafts: which tokens become nodes, and where the device keeps them meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain


class DraftTrees(NamedTuple):
    """One tree per sequence as it is verified: parents in front of their children.

    Attributes:
        nodes:     tokens, positions [B, N] and numbers of nodes [B]; the rest is padding that sees
            the prefix and itself alone.
        parents:   [B, N] int64; -1: none, as the root and padding.
        ancestors: [B, N] int64, as in NodeBatch.
    """

    nodes: DraftChain
    parents: Tensor
    ancestors: Tensor

    @classmethod
    def of_roots(
        cls, batch: int, num_nodes: int, threshold: float, device: torch.device
    ) -> DraftTrees:
        """As :meth:`DraftChain.of_roots`; the rest is padding."""
        nodes = DraftChain.of_roots(batch, num_nodes, threshold, device)
        return cls(nodes, torch.full_like(nodes.tokens, -1), _alone(nodes.tokens))

    @classmethod
    def of_chains(
        cls, batch: int, num_nodes: int, threshold: float, device: torch.device
    ) -> DraftTrees:
        """As :meth:`DraftChain.of_roots`; the rest of each tree can only be a chain."""
        nodes = DraftChain.of_roots(batch, num_nodes, threshold, device)
        before = torch.arange(-1, num_nodes - 1, device=device).expand(batch, num_nodes)
        return cls(nodes, before.contiguous(), _alone(nodes.tokens).cumsum(1))


class Seedbed(NamedTuple):
    """Trees while they grow, one per sequence: inner nodes at P places, those of each pass at its
    own, and the candidates behind them.

    Attributes:
        tokens:    [B, P] int64; positions: [B, P] int32, RoPE indices.
        parents:   [B, P] int64, places; ancestors: [B, P] int64, places as in NodeBatch.
        paths:     [B, P] float64, the probability that all of the path is right; -1: it is empty.
        sure:      [B, P] int32; not 0: inner nodes may follow.
        candidates: [B, P, K] int64, tokens; waiting: [B, P, K] float64, their paths'
            probabilities; -1: it has become a node, or the place is empty.
    """

    tokens: Tensor
    positions: Tensor
    parents: Tensor
    ancestors: Tensor
    paths: Tensor
    sure: Tensor
    candidates: Tensor
    waiting: Tensor

    @classmethod
    def empty(cls, batch: int, num_places: int, k: int, device: torch.device) -> Seedbed:
        """Nothing grows."""
        shape = (batch, num_places)

        def full(value: int, dtype: torch.dtype, *more: int) -> Tensor:
            return torch.full((*shape, *more), value, dtype=dtype, device=device)

        tokens = full(0, torch.int64)
        return cls(
            tokens,
            full(0, torch.int32),
            full(-1, torch.int64),
            _alone(tokens),
            full(-1, torch.float64),
            full(0, torch.int32),
            full(0, torch.int64, k),
            full(-1, torch.float64, k),
        )


def _alone(tokens: Tensor) -> Tensor:
    """Masks [B, N] of nodes that see themselves alone; `tokens` [B, N] int64 are theirs."""
    return torch.ones_like(tokens) << torch.arange(tokens.shape[1], device=tokens.device)


class Candidate(NamedTuple):
    """A token that may become a node.

    Attributes:
        probability: that all of the path is right, by the drafter's own, sharpened.
        sure: the drafter was sure enough of what follows `parent` to draft behind it.
        rank: among the tokens behind `parent`.
    """

    probability: float
    token: int
    parent: int
    sure: bool
    rank: int


def shares(probabilities: Sequence[float], sharpness: float) -> list[float]:
    """Of each, sharpened, in the sum of all; nothing where that is nothing."""
    weights = [p**sharpness if p > 0 else 0.0 for p in probabilities]
    total = sum(weights)
    return [weight / total if total else 0.0 for weight in weights]


def choose(
    waiting: Sequence[Candidate], paths: Sequence[float], max_nodes: int, passes_left: int
) -> tuple[list[Candidate], bool]:
    """What becomes nodes now, the most probable first; and whether they are the tree's last.

    A pass takes the candidates with the most probable paths that may be drafted behind, for half of
    its share of the nodes that are left (of one, a half, a whole and two shares a half drafted best
    on tiny-py). Where there are none, in the last pass, and where one node is left, the most
    probable of all that wait are taken, as leaves. Ties go to the older candidate. With one token
    behind a node and nodes enough the tree is the chain of the same depth and confidence.

    What is improbable waits, for the nodes that it would cost may be better spent further down
    (EAGLE-2, arXiv 2406.16858, drafts them all and then drops). No path is more probable than its
    beginning, so one that is not among the best has no children there, and is at most a leaf.

    Args:
        waiting: the oldest first; paths: probabilities of those that lead to nodes.
        max_nodes: of the tree, its root included.
    """
    nodes_left = max_nodes - len(paths)
    ordered = sorted(waiting, key=lambda c: -c.probability)
    if passes_left > 1 and nodes_left > 1:
        known = sorted([*paths, *(c.probability for c in waiting)], reverse=True)
        least = known[: max_nodes - 1][-1]
        if inner := [c for c in ordered if c.sure and c.probability >= least]:
            return inner[: -(-nodes_left // (2 * passes_left))], False
    return ordered[:nodes_left], True


def widths(max_nodes: int, max_depth: int) -> list[int]:
    """Of every pass in front of the last, how many nodes it may take: each has taken one at
    least.
    """
    found = []
    for done in range(max_depth - 1):
        if (nodes_left := max_nodes - 1 - done) > 1:
            found.append(-(-nodes_left // (2 * (max_depth - done))))
    return found
