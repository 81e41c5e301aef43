"""Texts that repeat themselves, for tests of copy_draft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.verify_tree import Verdict


@dataclass
class Texts:
    """Arguments of copy_draft behind a round whose paths skip every other node."""

    text: Tensor
    verdict: Verdict
    trees: DraftTrees
    cache_seqlens: Tensor
    found: Tensor

    @classmethod
    def of(
        cls, texts: Sequence[Sequence[int]], num_nodes: int, path_lens: Sequence[int] | None = None
    ) -> Texts:
        """The last tokens of each text are its root and, in front of that, what the path brought:
        the rest is known.
        """
        batch, i32, device = len(texts), torch.int32, torch.get_default_device()
        lengths = [1] * batch if path_lens is None else path_lens
        trees = DraftTrees.of_roots(batch, num_nodes, 0.0, device)
        for x in (trees.nodes.tokens, trees.nodes.positions, trees.parents, trees.ancestors):
            x.random_(100)  # what the last round has left
        text = torch.randint(100, (batch, 7 + max(map(len, texts))), dtype=i32)
        path = torch.full((batch, num_nodes), -1)
        for b, (tokens, length) in enumerate(zip(texts, lengths, strict=True)):
            known = len(tokens) - length
            text[b, :known] = torch.tensor(tokens[:known], dtype=i32)
            nodes = [0, *sorted(range(num_nodes - 1, 0, -2)[: length - 1])]
            path[b, :length] = torch.tensor(nodes)
            trees.nodes.tokens[b, nodes[1:]] = torch.tensor(tokens[known:-1], dtype=torch.int64)
            trees.nodes.tokens[b, 0] = tokens[-1]
        return cls(
            text,
            Verdict(path, torch.tensor(lengths, dtype=i32), torch.randint(100, (batch,))),
            trees,
            torch.tensor([len(tokens) - 1 for tokens in texts], dtype=i32),
            torch.full((batch,), 9, dtype=i32),
        )

    def look(self, op: Callable[..., None], size: int, count: int) -> None:
        op(*vars(self).values(), size=size, count=count)

    def copy(self) -> Texts:
        return deepcopy(self)

    @property
    def flat(self) -> tuple[Tensor, ...]:
        """In the order of torch.ops.kangaroo.copy_draft."""
        trees = (*self.trees.nodes, self.trees.parents, self.trees.ancestors)
        return (self.text, *self.verdict, *trees, self.cache_seqlens, self.found)
