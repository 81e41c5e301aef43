"""Trees that grow pass by pass, for tests of grow_tree."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from kangaroo_kernels.draft_trees import DraftTrees, Seedbed, widths

Rule = dict[str, int | float]
PASS: Rule = {"first": 0, "width": 2, "passes_left": 3, "sharpness": 1.5}
LAST_PASS = PASS | {"width": 0, "passes_left": 1}


@dataclass
class Bed:
    """Arguments of grow_tree that a pass leaves to the next."""

    seedbed: Seedbed
    trees: DraftTrees
    max_nodes: int

    @classmethod
    def of(
        cls,
        roots: Sequence[int],
        max_nodes: int,
        num_places: int,
        k: int,
        threshold: float = 0.0,
        *,
        room: int = 0,
    ) -> Bed:
        """Roots at these positions; their tokens are 7, 8, ... `room`: for so many nodes more."""
        batch, device = len(roots), torch.get_default_device()
        trees = DraftTrees.of_roots(batch, max_nodes + room, threshold, device)
        nodes = trees.nodes
        for x in (nodes.tokens, nodes.positions, trees.parents, trees.ancestors):
            x.random_(100)  # what an earlier tree may have left
        nodes.tokens[:, 0] = torch.arange(batch) + 7
        nodes.positions[:, 0] = torch.tensor(roots)
        return cls(Seedbed.empty(batch, num_places, k, device), trees, max_nodes)

    @property
    def flat(self) -> tuple[Tensor, ...]:
        """In the order of torch.ops.kangaroo.grow_tree."""
        return (*self.seedbed, *self.trees.nodes, self.trees.parents, self.trees.ancestors)

    def grow(
        self, op: Callable[..., None], rows: Tensor, rule: Rule, tokens: Tensor | None = None
    ) -> None:
        """A pass behind which tokens 0, 1, ... or these have probabilities rows [B, W, K]."""
        if tokens is None:
            tokens = torch.arange(rows.shape[2]).expand_as(rows).contiguous()
        op(tokens, rows, self.seedbed, self.trees, max_nodes=self.max_nodes, **rule)

    def copy(self) -> Bed:
        return deepcopy(self)


def random_passes(draw: random.Random) -> tuple[Bed, list[tuple[Tensor, Tensor, Rule]]]:
    """Trees of any size, and what is ranked in every pass: tokens, probabilities and the rule."""
    max_depth, k, batch = draw.choice([1, 2, 4, 6]), draw.choice([1, 2, 3, 10]), draw.randint(1, 3)
    max_nodes = draw.choice([2, 3, 7, 16, 33, 64])
    inner = widths(max_nodes, max_depth)
    bed = Bed.of(
        [draw.randrange(50) for _ in range(batch)],
        max_nodes,
        1 + sum(inner),
        k,
        draw.choice([0.0, 0.2, 0.5]),
        room=draw.choice([0, 0, min(9, 64 - max_nodes)]),
    )
    passes, first, num_new = list[tuple[Tensor, Tensor, Rule]](), 0, 1
    for n, width in enumerate([*inner, 0]):
        logits = draw.choice([1, 3, 6]) * torch.randn(batch, num_new, 50)
        best = logits.softmax(-1).topk(k)
        rule: Rule = {"first": first, "width": width, "passes_left": max_depth - n}
        sharpness = {"sharpness": draw.choice([1.0, 1.5])}
        passes.append((best.indices, best.values, rule | sharpness))
        first, num_new = first + num_new, width
    return bed, passes
