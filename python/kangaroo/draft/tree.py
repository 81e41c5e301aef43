"""The draft: a tree of guessed tokens, parents first, rooted at the last committed token."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class DraftTree:
    """Node 0 is the root; parents[node] < node. A chain is a tree of width one.

    Attributes:
        tokens: token id of each node.
        parents: parent of each node; the root's is -1.
        depths: distance from the root; a node's position is the root's plus its depth.
        drawn_from: of each node with children, the distribution [1, V] float64 that
            they were drawn from, one after the other without replacement; empty where tokens were
            chosen without any random number.
    """

    tokens: list[int]
    parents: list[int] = field(default_factory=lambda: [-1])
    depths: list[int] = field(default_factory=lambda: [0])
    drawn_from: dict[int, Tensor] = field(default_factory=dict, compare=False)

    @classmethod
    def root(cls, token: int) -> DraftTree:
        return cls([token])

    @classmethod
    def chain(cls, tokens: list[int]) -> DraftTree:
        """Each token below the one in front of it; the first is the root."""
        return cls(tokens, list(range(-1, len(tokens) - 1)), list(range(len(tokens))))

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, token: int, parent: int) -> int:
        """Hang a node below `parent`; returns the new node."""
        self.tokens.append(token)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1)
        return len(self) - 1

    def path_tokens(self, node: int) -> list[int]:
        """Tokens from below the root to `node`."""
        path = []
        while node:
            path.append(self.tokens[node])
            node = self.parents[node]
        return path[::-1]

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Tokens and parents, each [1, len] int64."""
        return torch.tensor([self.tokens], device=device), torch.tensor(
            [self.parents], device=device
        )
