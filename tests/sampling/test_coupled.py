"""The coupled rule in fractions: the target's law, and its very tokens, whatever is drafted."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch

from kangaroo.draft.tree import DraftTree
from tests.sampling.exact import Branches, Law, as_row, distance, law_of
from tests.sampling.test_exact import ENDS, TREES, WARPS
from tests.sampling.toys import TableDrafter, Toy, table


def coupled(toy: Toy) -> Toy:
    return replace(toy, draft_sampling="coupled")


def is_lossless(toy: Toy) -> bool:
    """The law is the target's, and by the same numbers plain decoding writes the same tokens."""
    plain = replace(toy, widths=(), adversary=None)
    law, _ = law_of(lambda source: (toy.run(source), plain.run(source)))
    written: Law[tuple[int, ...]] = {ids: weight for (ids, _), weight in law.items()}
    assert sum(law.values()) == 1
    same = all(ids == without_drafts for ids, without_drafts in law)
    return same and distance(written, toy.expected()) == 0


def first_drafts_met(toy: Toy) -> Fraction:
    """How likely all of the first round's draft is kept."""

    def all_kept(source: Branches) -> bool:
        first = toy.rounds(source)[0]
        return first.num_accepted == first.num_drafted

    return law_of(all_kept)[0].get(True, Fraction(0))


def meeting(p: Any, q: Any) -> Fraction:
    """How likely two rows of one race draw the same token."""
    both = [token for token in range(p.shape[1]) if p[0, token] and q[0, token]]
    return sum(
        (
            1 / sum(max(a / p[0, x], b / q[0, x]) for a, b in zip(p[0], q[0], strict=True))
            for x in both
        ),
        Fraction(0),
    )


@pytest.mark.parametrize(("widths", "chosen", "stops"), TREES)
def test_nothing_that_is_drafted_changes_a_token(
    widths: tuple[int, ...], chosen: bool, stops: list[Fraction | int]
) -> None:
    """Chains and trees, drawn and chosen, under every warp, stop and end."""
    for seed, ((warp, draft_warp), stop, (num_tokens, eos_id)) in enumerate(
        product(WARPS, stops, ENDS)
    ):
        toy = Toy(
            table(seed, 3),
            table(1000 + seed, 3),
            num_tokens,
            widths,
            confidence=Fraction(stop),
            warp=warp,
            draft_warp=draft_warp,
            eos_id=eos_id,
            chosen=chosen,
        )
        assert is_lossless(coupled(toy)), toy


@pytest.mark.parametrize("widths", [(1, 1), (1, 1, 1), (2, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_over_many_rounds(widths: tuple[int, ...], seed: int) -> None:
    """Numbers of a position are asked again by every round that drafts it."""
    toy = Toy(table(seed, 2, 0), table(100 + seed, 2, 0), 5, widths, Fraction(3, 5))
    assert is_lossless(coupled(toy))


@pytest.mark.parametrize("widths", [(1, 1), (2,), (2, 1)])
@pytest.mark.parametrize("sparse", [0.0, 0.5, 0.8])
def test_rows_with_tokens_that_cannot_be(widths: tuple[int, ...], sparse: float) -> None:
    """Supports that overlap in part, in one token, or not at all; four tokens."""
    for seed in range(3):
        toy = Toy(table(seed, 4, sparse), table(50 + seed, 4, 0.8 - sparse), 2, widths)
        assert is_lossless(coupled(toy))


class Prophet(TableDrafter):
    """Reads the target's numbers ahead; always right."""

    def future(self, state: Any, length: int) -> list[int]:
        """What the target will write behind `state`."""
        tokens = state.requests[0].tokens
        ids = list(tokens)
        for _ in range(length):
            row = self.sampler.row(self.sampler.target, ids, torch.zeros(1))
            ids.append(int(self.sampler.source.race(row, 0, len(ids))))
        return ids[len(tokens) :]

    def draft(self, state: Any, max_depths: list[int]) -> list[DraftTree]:
        root = state.requests[0].tokens[-1]
        return [DraftTree.chain([root, *self.future(state, max_depths[0])])]


class Spiteful(Prophet):
    """Drafts every token but the one that will be written."""

    def draft(self, state: Any, max_depths: list[int]) -> list[DraftTree]:
        tree = DraftTree.root(state.requests[0].tokens[-1])
        for right in self.future(state, min(max_depths[0], 1)):
            for token in {0, 1, 2} - {right}:
                tree.add(token, 0)
        return [tree]


class Hindsight(Prophet):
    """Is right where the token behind its draft will be 0, and wrong elsewhere."""

    def draft(self, state: Any, max_depths: list[int]) -> list[DraftTree]:
        *drafted, behind = self.future(state, max_depths[0] + 1)
        if behind:
            drafted = [(token + 1) % 3 for token in drafted]
        return [DraftTree.chain([state.requests[0].tokens[-1], *drafted])]


class Shy(TableDrafter):
    """Drops a drawn token, and what follows it, for what it turned out to be."""

    def draft(self, state: Any, max_depths: list[int]) -> list[DraftTree]:
        (tree,) = super().draft(state, max_depths)
        kept = (tree.tokens[1:] + [1]).index(1)
        shorter = DraftTree.chain(tree.tokens[: 1 + kept])
        shorter.drawn_from = {node: tree.drawn_from[node] for node in range(kept)}
        return [shorter]


@pytest.mark.parametrize("adversary", [Prophet, Spiteful, Hindsight, Shy])
def test_drafters_that_know_all_and_do_as_they_like(adversary: type[TableDrafter]) -> None:
    for seed, (num_tokens, eos_id) in product(range(4), ENDS):
        toy = Toy(table(seed, 3), table(70 + seed, 3), num_tokens, (1, 1), eos_id=eos_id)
        assert is_lossless(coupled(replace(toy, adversary=adversary)))


def test_the_exact_law_has_teeth_for_such_drafters() -> None:
    """By rejection a token that is dropped for what it is, is written too seldom or too often."""
    toy = Toy(table(1, 3), table(71, 3), 3, (1, 1), adversary=Shy)
    assert distance(toy.speculative()[0], toy.expected()) > 0


def test_a_drafter_that_is_the_target_is_always_right() -> None:
    for seed in range(4):
        target = table(seed, 3)
        for widths in ((1,), (1, 1), (1, 1, 1)):
            assert first_drafts_met(coupled(Toy(target, target, len(widths) + 1, widths))) == 1


def test_how_often_a_draft_is_met() -> None:
    """Exactly as the theory of the race says, at least (1 - d) / (1 + d); by rejection 1 - d."""
    for seed in range(30):
        target, drafter = table(seed, 3), table(200 + seed, 3)
        p, q = as_row(target((0,))), as_row(drafter((0,)))
        d = abs(p - q).sum() / 2
        toy = Toy(target, drafter, 2, (1,))
        assert first_drafts_met(toy) == 1 - d
        met = first_drafts_met(coupled(toy))
        assert met == meeting(p, q)
        assert (1 - d) / (1 + d) <= met <= 1 - d


def test_chosen_drafts_are_met_as_often_as_by_rejection() -> None:
    """A tree of the best tokens catches what the target gives them, by either rule."""
    for seed in range(10):
        toy = Toy(table(seed, 3), table(300 + seed, 3), 2, (2,), chosen=True)

        def caught(source: Branches, toy: Toy = toy) -> int:
            return toy.rounds(source)[0].num_accepted

        by_rejection = law_of(caught)[0]
        met = law_of(lambda source, toy=toy: coupled(toy).rounds(source)[0].num_accepted)[0]
        assert distance(met, by_rejection) == 0
