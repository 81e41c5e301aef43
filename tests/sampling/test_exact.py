"""The law of the output is the target's, whatever is drafted: in fractions, no tolerance."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import pytest

from kangaroo.config import DRAFT_SAMPLINGS, DraftSampling
from tests.sampling import toys
from tests.sampling.exact import distance
from tests.sampling.toys import (
    Toy,
    Warp,
    Weights,
    cold,
    frozen,
    penalty,
    plain,
    table,
    top_k,
    top_p,
)

# Children of every node, depth by depth; and whether they are chosen rather than drawn.
SHAPES = [
    ((), False),
    ((1,), False),
    ((1, 1), False),
    ((1, 1, 1), False),
    ((2,), False),
    ((3,), False),
    ((2, 1), False),
    ((1, 2), False),
    ((1, 1), True),
    ((2,), True),
    ((2, 1), True),
]
# What shapes the target's rows, and the drafter's.
WARPS: list[tuple[Warp, Warp]] = [
    (plain, plain),
    (top_k, top_k),
    (top_p, top_p),
    (cold, cold),
    (penalty, penalty),
    (frozen, plain),
    (top_k, plain),
    (plain, top_p),
]
LARGE = (2, 2)  # takes longer than all others together
STOPS = [0, Fraction(1, 2), Fraction(2, 3)]
ENDS = [(3, -1), (3, 1), (2, 2)]  # token budget, end-of-sequence token
TREES = [
    *((*shape, STOPS) for shape in SHAPES),
    (LARGE, False, STOPS[1:2]),
    pytest.param(LARGE, False, STOPS, marks=pytest.mark.fuzz),
]
NUM_CONFIGURATIONS = (len(SHAPES) * len(STOPS) + 1) * len(WARPS) * len(ENDS)


def check(toy: Toy) -> None:
    law, _ = toy.speculative()
    assert sum(law.values()) == 1
    assert distance(law, toy.expected()) == 0, toy


def test_there_are_many_configurations() -> None:
    assert NUM_CONFIGURATIONS >= 800


@pytest.mark.parametrize(("widths", "chosen", "stops"), TREES)
def test_the_law_is_the_targets(
    widths: tuple[int, ...], chosen: bool, stops: list[Fraction | int]
) -> None:
    """Chains and trees, drawn and chosen, under every warp, stop and end."""
    for seed, ((warp, draft_warp), stop, (num_tokens, eos_id)) in enumerate(
        product(WARPS, stops, ENDS)
    ):
        target, drafter = table(seed, 3), table(1000 + seed, 3)
        check(
            Toy(
                target,
                drafter,
                num_tokens,
                widths,
                confidence=Fraction(stop),
                warp=warp,
                draft_warp=draft_warp,
                eos_id=eos_id,
                chosen=chosen,
            )
        )


@pytest.mark.parametrize("widths", [(1, 1), (1, 1, 1), (2, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_over_many_rounds(widths: tuple[int, ...], seed: int) -> None:
    """Numbers of a position whose draft was thrown away are used again by a later round."""
    check(Toy(table(seed, 2, 0), table(100 + seed, 2, 0), 5, widths, Fraction(3, 5)))


@pytest.mark.parametrize("widths", [(1, 1), (2,), (2, 1)])
@pytest.mark.parametrize("sparse", [0.0, 0.5, 0.8])
def test_rows_with_tokens_that_cannot_be(widths: tuple[int, ...], sparse: float) -> None:
    """Supports that overlap in part, in one token, or not at all."""
    for seed in range(6):
        check(Toy(table(seed, 3, sparse), table(50 + seed, 3, 0.8 - sparse), 3, widths))


@pytest.mark.parametrize("widths", [(1, 1), (2,)])
def test_a_drafter_that_is_the_target_or_its_opposite(widths: tuple[int, ...]) -> None:
    target = table(1, 3)
    check(Toy(target, target, 4, widths))

    def opposite(ids: tuple[int, ...]) -> list[int]:
        return [max(target(ids)) - weight for weight in target(ids)]

    check(Toy(lambda ids: [1, 2, 3], opposite, 3, widths))


@pytest.mark.parametrize("rule", DRAFT_SAMPLINGS)
@pytest.mark.parametrize("vocabulary", [{0}, {2}, {0, 1}, {1, 2}])
def test_a_draft_vocabulary(vocabulary: set[int], rule: DraftSampling) -> None:
    """Other tokens are drafted only where nothing of the vocabulary is possible."""

    def within(weights: Weights) -> Weights:
        def row(ids: tuple[int, ...]) -> list[int]:
            inside = [w * (token in vocabulary) for token, w in enumerate(weights(ids))]
            return inside if any(inside) else [int(n not in vocabulary) for n in range(3)]

        return row

    for seed in range(4):
        drafter = within(table(70 + seed, 3, 0.5))
        check(Toy(table(seed, 3), drafter, 3, (1, 1), draft_sampling=rule))


@pytest.mark.fuzz
def test_stopping_by_the_drawn_tokens_own_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """As lawful as by the row's maximum, as long as the token is kept."""

    def draft(self: toys.TableDrafter, state: Any, max_depths: list[int]) -> list[toys.DraftTree]:
        (tree,) = toys.SampledDrafter.draft(self, state, max_depths)
        for node, row in list(tree.drawn_from.items()):
            if row[0, tree.tokens[node + 1]] < Fraction(1, 3):
                del tree.tokens[node + 2 :], tree.parents[node + 2 :], tree.depths[node + 2 :]
                tree.drawn_from = {n: r for n, r in tree.drawn_from.items() if n <= node}
                break
        return [tree]

    monkeypatch.setattr(toys.TableDrafter, "draft", draft)
    for seed in range(4):
        check(Toy(table(seed, 3), table(20 + seed, 3), 4, (1, 1, 1)))
