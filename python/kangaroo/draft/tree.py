"""The draft: a tree of guessed tokens, parents first, rooted at the last committed token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class DraftTree:
    """Node 0 is the root; parents[node] < node. A chain is a tree of width one.

    Trees of a batch are padded to be equally large; see :meth:`pad`.

    Attributes:
        tokens: token id of each node.
        parents: parent of each node; -1: it has none, as the root and padding.
        depths: distance from the root; a node's position is the root's plus its depth.
        ancestors: bit j: node j is the node itself or its ancestor.
        drawn_from: of each node with children, the distribution [1, V] float64 that
            they were drawn from, one after the other without replacement; empty where tokens were
            chosen without any random number.
        num_passes: of a drafter, that it has taken.
    """

    tokens: list[int]
    parents: list[int] = field(default_factory=lambda: [-1])
    depths: list[int] = field(default_factory=lambda: [0])
    ancestors: list[int] = field(default_factory=lambda: [1])
    drawn_from: dict[int, Tensor] = field(default_factory=dict, compare=False)
    num_passes: int = field(default=0, compare=False)

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
        while node > 0:  # padding has no path
            path.append(self.tokens[node])
            node = self.parents[node]
        return path[::-1]

    @property
    def num_drafted(self) -> int:
        """Nodes that are drafts: all but the root and padding."""
        return sum(parent >= 0 for parent in self.parents)

    @property
    def is_chain(self) -> bool:
        """Every draft hangs below the node before it; padding may follow."""
        last = self.num_drafted
        return self.depths[last] == last

    def pad(self, num_nodes: int) -> None:
        """Fill up with nodes that no path can lead to: they see the prefix and themselves alone."""
        for node in range(len(self), num_nodes):
            self.tokens.append(0)
            self.parents.append(-1)
            self.depths.append(0)
            self.ancestors.append(1 << node)


def pad(trees: Sequence[DraftTree]) -> None:
    """Give all trees as many nodes as the largest has."""
    num_nodes = max(map(len, trees))
    for tree in trees:
        tree.pad(num_nodes)


def is_chain(trees: Sequence[DraftTree]) -> bool:
    """All of them are chains."""
    return all(tree.is_chain for tree in trees)


def tensors(trees: Sequence[DraftTree], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens and parents of equally large trees, each [B, N] int64."""
    tokens = torch.tensor([tree.tokens for tree in trees], device=device)
    return tokens, torch.tensor([tree.parents for tree in trees], device=device)


def places(
    trees: Sequence[DraftTree], start: int, stop: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Of nodes [start, stop): depths [B, N] int32 and ancestors [B, N] int64, whose sign is bit
    63.
    """
    masks = [[m - (m >> 63 << 64) for m in tree.ancestors[start:stop]] for tree in trees]
    depths = [tree.depths[start:stop] for tree in trees]
    return (
        torch.tensor(depths, dtype=torch.int32, device=device),
        torch.tensor(masks, dtype=torch.int64, device=device),
    )
