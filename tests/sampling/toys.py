"""Targets and drafters that are tables of fractions, decoded by the engine's own code.

Only what computes logits is replaced: the decode loop, the chain drafter, the sampler and the
accept rule are those that ship.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from kangaroo.config import DraftConfig, DraftSampling
from kangaroo.draft.sampled import SampledDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.decode import Decoder, Round
from kangaroo.engine.state import Request
from kangaroo.sampling import accept
from kangaroo.sampling.sampler import Sampler
from kangaroo.sampling.source import Place, Purpose
from kangaroo_kernels.draw_tokens.reference import draw_tokens
from tests.sampling.exact import Branches, Law, as_row, law_of

Weights = Callable[[tuple[int, ...]], list[int]]  # of the token behind some tokens
Warp = Callable[[Sequence[int], list[int]], list[int]]
ROOT = 0  # the prompt, one token


def table(seed: int, vocab_size: int, sparse: float = 0.2) -> Weights:
    """A row of small integers for every context; some of them zero, never all."""

    @cache
    def weights(ids: tuple[int, ...]) -> list[int]:
        rng = random.Random(repr((seed, ids)))
        row = [0 if rng.random() < sparse else rng.randint(1, 12) for _ in range(vocab_size)]
        return row if any(row) else [1] * vocab_size

    return weights


def plain(ids: Sequence[int], row: list[int]) -> list[int]:
    return row


def top_k(ids: Sequence[int], row: list[int]) -> list[int]:
    """The two heaviest, and what ties with them."""
    return [w if w >= sorted(row)[-2] else 0 for w in row]


def top_p(ids: Sequence[int], row: list[int]) -> list[int]:
    """Tokens in front of which, in order of weight, stands less than 0.6 of the whole."""
    heavier = [sum(v for v in row if v > w) for w in row]
    return [w if 10 * h < 6 * sum(row) else 0 for w, h in zip(row, heavier, strict=True)]


def cold(ids: Sequence[int], row: list[int]) -> list[int]:
    """Temperature 1/3."""
    return [w**3 for w in row]


def frozen(ids: Sequence[int], row: list[int]) -> list[int]:
    """Temperature 0; ties to the lowest id."""
    return [int(token == row.index(max(row))) for token in range(len(row))]


def penalty(ids: Sequence[int], row: list[int]) -> list[int]:
    """Tokens that were there before are worth a quarter: a row that depends on its whole path."""
    return [w if token in ids else 4 * w for token, w in enumerate(row)]


@dataclass(frozen=True)
class Toy:
    """One experiment.

    Attributes:
        target, drafter: weights before `warp`, which shapes the target's, and `draft_warp`.
        widths: children of every node at each depth: (1, 1) is a chain of two.
        confidence: of the drafter's stop, on the row's maximum.
        eos_id: ends a sequence; -1: none does.
        chosen: tokens are the drafter's best rather than drawn.
        draft_sampling: see Sampler.
        adversary: drafts in place of the engine's drafter.
    """

    target: Weights
    drafter: Weights
    num_tokens: int
    widths: tuple[int, ...] = (1, 1)
    confidence: Fraction = Fraction(0)
    warp: Warp = plain
    draft_warp: Warp = plain
    eos_id: int = -1
    chosen: bool = False
    draft_sampling: DraftSampling = "rejection"
    adversary: type[TableDrafter] | None = None

    @property
    def eos_ids(self) -> Set[int]:
        return frozenset({self.eos_id})

    def expected(self) -> Law[tuple[int, ...]]:
        """The law of the target's own output."""
        running: Law[tuple[int, ...]] = {(): Fraction(1)}
        for _ in range(self.num_tokens):
            longer: Law[tuple[int, ...]] = {}
            for ids, weight in running.items():
                if ids and ids[-1] == self.eos_id:
                    longer[ids] = weight
                    continue
                row = self.warp((ROOT, *ids), self.target((ROOT, *ids)))
                for token, w in enumerate(row):
                    if w:
                        longer[(*ids, token)] = weight * Fraction(w, sum(row))
            running = longer
        return running

    def speculative(self) -> tuple[Law[tuple[int, ...]], int]:
        """The law of the engine's output, and over how many paths it was summed."""
        return law_of(self.run)

    def run(self, source: Branches) -> tuple[int, ...]:
        return tuple(token for round_ in self.rounds(source) for token in round_.tokens)

    def rounds(self, source: Branches) -> list[Round]:
        sampler = TableSampler(
            source, 0, self._rows(True), self._rows(False), draft_sampling=self.draft_sampling
        )
        config = DraftConfig(1, len(self.widths), float(self.confidence))
        chain = set(self.widths) <= {1} and not self.chosen
        drafter = (self.adversary or (TableDrafter if chain else TreeDrafter))(MODEL, MODEL, config)
        drafter.toy, drafter.sampler = self, sampler
        request = Request([ROOT], self.num_tokens, self.eos_ids, sampler=sampler)
        return list(TableDecoder(MODEL, drafter, config).generate(request))

    def _rows(self, of_target: bool) -> Any:
        weights = self.target if of_target else self.drafter
        warp = self.warp if of_target else self.draft_warp
        return lambda ids: as_row(warp(ids, weights(tuple(ids))))


MODEL: Any = SimpleNamespace(
    weights=SimpleNamespace(lm_head=None),
    config=SimpleNamespace(vocab_size=100, max_seq_len=100, sliding_window=None),
    kernels=SimpleNamespace(draw_tokens=draw_tokens),
)


class TableSampler(Sampler):
    """Reads a row instead of making one of logits."""

    def row(self, processors: Any, ids: list[int], logits: Tensor, kept: Any = None) -> Any:
        return processors(ids)


class TableDrafter(SampledDrafter):
    """Draws chains as the engine does."""

    toy: Toy
    sampler: Sampler

    def verified(self, state: Any, trees: Any, h_deep: Any, successors: Any) -> None:
        pass

    def _shallow(self, state: Any, token: Tensor) -> None:
        pass

    def _keep_up(self, adapter: Any, state: Any) -> None:
        pass

    def _logits(self, adapter: Any, state: Any) -> Tensor:
        return torch.zeros(1, 1)


class TreeDrafter(TableDrafter):
    """Draws or chooses `toy.widths` children of every node that was sure enough."""

    def draft(self, state: Any, max_depths: list[int]) -> list[DraftTree]:
        (max_depth,), tokens = max_depths, state.requests[0].tokens
        tree, unsure = DraftTree.root(tokens[-1]), set()
        node = 0
        while node < len(tree):
            depth = tree.depths[node]
            if depth < max_depth and tree.parents[node] not in unsure:
                row = self._grow(tokens + tree.path_tokens(node), tree, node)
                if not float(row.max()) >= self.config.confidence:
                    unsure.add(node)
            node += 1
        return [tree]

    def _grow(self, ids: list[int], tree: DraftTree, node: int) -> Any:
        sampler, width = self.sampler, self.toy.widths[tree.depths[node]]
        row = rest = sampler.row(sampler.draft, ids, torch.zeros(1))
        if self.toy.chosen:
            for token in sorted(range(row.shape[1]), key=lambda token: -row[0, token])[:width]:
                tree.add(token, node)
            return row
        tree.drawn_from[node] = row
        for rank in range(min(width, int((row > 0).sum()))):
            if sampler.coupled:
                token = sampler.source.race(rest, 0, len(ids))
            else:
                token = sampler.source.draw(rest, Place(0, len(ids), Purpose.DRAFT, rank))
            rest = accept.without(rest, token)
            tree.add(int(token), node)
        return row


class TableDecoder(Decoder):
    """A target that computes nothing."""

    def prefill(self, request: Request, past: Any = None) -> Any:
        return SimpleNamespace(
            requests=[request],
            prefix_lens=[request.prefix_len],
            exit_states=torch.zeros(1),
            unwritten=[],
            forget_nodes=lambda: None,
            commit=lambda verdict, paths, new, kernels: request.tokens.extend(new[0]),
        )

    def verify(self, state: Any, trees: list[DraftTree]) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, len(trees[0]), 1), torch.zeros(1)
