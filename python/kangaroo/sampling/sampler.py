"""How the tokens of one sequence are decided where the target's argmax alone does not."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from kangaroo.config import DRAFT_SAMPLINGS, DraftSampling
from kangaroo.draft.tree import DraftTree, tensors
from kangaroo.sampling.accept import Candidates, accept, certain, walk
from kangaroo.sampling.source import Place, Purpose, Source
from kangaroo_kernels.draws import Draw, Draws
from kangaroo_kernels.verify_tree import Verdict


@dataclass(frozen=True)
class Sampler:
    """Rows of the target and of the drafter, and the decisions between them.

    A row is a function of its node's logits and of the tokens in front of them, committed ones and
    path: what is rejected leaves nothing behind that would have to be rolled back.

    Attributes:
        source: of random decisions.
        sequence: number of this sequence among those of one seed.
        target, draft: what shapes the rows of each.
        do_sample: False: all of a row's probability is on its best token (ties to the lowest id).
        draw: all that shapes and draws the target's rows, as kernels do it; None: more than they
            can do.
        draft_sampling: "coupled": every token is the target's own draw by the numbers of its
            position, whatever is drafted. "rejection": speculative sampling, which keeps more of a
            draft and has the same law, but what is drafted decides which tokens are drawn.

    Raises:
        ValueError: a `draft_sampling` that does not exist, or that is not what kernels do.
    """

    source: Source
    sequence: int
    target: LogitsProcessorList
    draft: LogitsProcessorList
    do_sample: bool = True
    draft_sampling: DraftSampling = "coupled"
    draw: Draw | None = None

    def __post_init__(self) -> None:
        if self.draft_sampling not in DRAFT_SAMPLINGS:
            raise ValueError(
                f"draft_sampling: expected one of {DRAFT_SAMPLINGS}, got {self.draft_sampling!r}"
            )
        if self.draw is not None and not self.coupled:
            raise ValueError("draw: expected None beside draft_sampling='rejection', got one")

    @property
    def coupled(self) -> bool:
        """Drafter and target draw by the same numbers."""
        return self.draft_sampling == "coupled"

    def propose(self, ids: list[int], logits: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the token behind `ids` from the drafter's logits [1, V].

        Returns:
            (the token [1] int64, the row [1, V] float64 that it was drawn from).
        """
        q = self.row(self.draft, ids, logits)
        sequence, position = torch.tensor([[self.sequence], [len(ids)]], device=logits.device)
        if self.coupled:
            return self.source.race(q, sequence, position), q
        return self.source.draw(q, Place(sequence, position, Purpose.DRAFT, 0)), q

    def shares(self, histories: Sequence[list[int]], logits: Tensor) -> Tensor:
        """How well every token does in the race behind each history, by drafters' logits [N, V].

        Returns:
            [N, V] float64, rows of sum 1: exp(score) over the sum of all tokens'.
        """
        pairs = zip(histories, logits, strict=True)
        rows = torch.cat([self.row(self.draft, ids, row[None]) for ids, row in pairs])
        position = torch.tensor([len(ids) for ids in histories], device=logits.device)
        sequence = torch.full_like(position, self.sequence)
        shares: Tensor = self.source.scores(rows, sequence, position).softmax(-1)
        return shares

    def verify(
        self,
        history: list[int],
        tree: DraftTree,
        logits: Tensor,
        scores: list[Tensor] | None = None,
        eos_ids: Set[int] = frozenset(),
    ) -> Verdict:
        """Which nodes are kept behind `history`, whose last token is the root. Behind one of
        `eos_ids` nothing is written and no processor asked: what is decided there is of no use.

        Args:
            tree: drawn by :meth:`propose`, node by node, or chosen without any random number; if
                coupled, of any tokens.
            logits: [1, N, V] float32, the target's prediction after each node.
            scores: gets [1, V] float32 of the root and of every node that is kept: what processors
                made of their logits. None: they are not wanted.
        """
        tokens, parents = tensors([tree], logits.device)
        newest: list[Tensor] = []

        def target(_: Tensor, nodes: Tensor) -> Tensor:
            node = int(nodes)
            path = tree.path_tokens(node)
            if eos_ids.isdisjoint(path):
                newest[:] = [self.row(self.target, history + path, logits[:, node], scores)]
            return newest[0] + 0

        def draft(_: Tensor, nodes: Tensor) -> Tensor:
            return tree.drawn_from[int(nodes)]

        sequence, position = torch.tensor([[self.sequence], [len(history)]], device=logits.device)
        candidates = Candidates(tokens, parents, sequence, position)
        if self.coupled:
            verdict = walk(candidates, target, self.source)
        else:
            verdict = accept(candidates, target, draft if tree.drawn_from else None, self.source)
        return verdict._replace(path_len=verdict.path_len.int())

    def scores(
        self, history: list[int], tree: DraftTree, path: list[int], logits: Tensor
    ) -> list[Tensor]:
        """[1, V] float32 of every node of `path`: what processors make of its row of logits
        [N, V].
        """
        behind = [history + tree.path_tokens(node) for node in path]
        rows = (logits[node : node + 1] for node in path)
        return [shaped(self.target, *each).float() for each in zip(behind, rows, strict=True)]

    def row(
        self,
        processors: LogitsProcessorList,
        ids: list[int],
        logits: Tensor,
        kept: list[Tensor] | None = None,
    ) -> Tensor:
        """Probabilities [1, V] float64 of the token behind `ids`, from its logits [1, V]; what they
        are the softmax of is also appended to `kept`.
        """
        scores = shaped(processors, ids, logits)
        if kept is not None:
            kept.append(scores.float())
        if self.do_sample:
            return scores.double().softmax(-1)
        largest, best = scores.max(-1)  # +inf asks for a token; NaN and -inf ask for none
        row = torch.zeros_like(scores, dtype=torch.float64)
        return certain(row, best) if largest > -torch.inf else row.fill_(torch.nan)


def shaped(processors: LogitsProcessorList, ids: list[int], logits: Tensor) -> Tensor:
    """What processors make of the logits [1, V] of the token behind `ids`."""
    input_ids: Any = torch.tensor([ids], device=logits.device)  # a LongTensor, for mypy
    row: Any = logits.clone()
    return processors(input_ids, row)


def by_kernels(sampler: Sampler | None) -> bool:
    """Kernels decide the tokens of a sequence with this sampler."""
    return sampler is None or sampler.draw is not None


def draws_of(samplers: Sequence[Sampler | None], device: torch.device) -> Draws:
    """Of B sequences; those that are not drawn by kernels take the most probable token. The same
    tensors for the same draws, so they are to be read alone.
    """
    draws = (None if sampler is None else sampler.draw for sampler in samplers)
    return _placed(tuple(draw or Draw() for draw in draws), device)


@lru_cache(maxsize=16)  # of the batches that decode at a time; each asks in every draft step
def _placed(draws: tuple[Draw, ...], device: torch.device) -> Draws:
    return Draws.of(draws, device)
