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
        ancestors: bit j: node j is the node itself or its ancestor.
        drawn_from: of each node with children, the distribution [1, V] float64 that
            they were drawn from, one after the other without replacement; empty where tokens were
            chosen without any random number.
    """

    tokens: list[int]
    parents: list[int] = field(default_factory=lambda: [-1])
    depths: list[int] = field(default_factory=lambda: [0])
    ancestors: list[int] = field(default_factory=lambda: [1])
    drawn_from: dict[int, Tensor] = field(default_factory=dict, compare=False)

    @classmethod
    def root(cls, token: int) -> DraftTree:
        return cls([token])

    @classmethod
    def chain(cls, tokens: list[int]) -> DraftTree:
        """Each token below the one in front of it; the first is the root."""
        count = len(tokens)
        ancestors = [(2 << node) - 1 for node in range(count)]
        return cls(tokens, list(range(-1, count - 1)), list(range(count)), ancestors)

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, token: int, parent: int) -> int:
        """Hang a node below `parent`; returns the new node."""
        self.tokens.append(token)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1)
        self.ancestors.append(self.ancestors[parent] | 1 << (len(self) - 1))
        return len(self) - 1

    def path_tokens(self, node: int) -> list[int]:
        """Tokens from below the root to `node`."""
        path = []
        while node:
            path.append(self.tokens[node])
            node = self.parents[node]
        return path[::-1]

    @property
    def is_chain(self) -> bool:
        """Every node hangs below the one before it."""
        return self.depths[-1] == len(self) - 1

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Tokens and parents, each [1, len] int64."""
        return torch.tensor([self.tokens], device=device), torch.tensor(
            [self.parents], device=device
        )

    def places(self, start: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of the nodes from `start` on: depths [1, N] int32 and ancestors [1, N] int64, whose sign
        is bit 63.
        """
        masks = [mask - (mask >> 63 << 64) for mask in self.ancestors[start:]]
        depths = torch.tensor([self.depths[start:]], dtype=torch.int32, device=device)
        return depths, torch.tensor([masks], dtype=torch.int64, device=device)
