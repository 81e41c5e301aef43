"""Mistakes put into the coupled rule: each is seen by its law, its tokens or its drafts' luck."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from kangaroo.sampling.accept import walk
from kangaroo.sampling.sampler import Sampler
from kangaroo.sampling.source import CounterSource
from tests.sampling.exact import as_row
from tests.sampling.test_coupled import coupled, first_drafts_met, is_lossless, meeting
from tests.sampling.test_mutants import mutated
from tests.sampling.test_race import check_numbers, check_the_law, check_the_winner
from tests.sampling.toys import Toy, penalty, plain, table

TOYS = [
    coupled(Toy(table(1, 3, 0), table(2, 3, 0), 3, (1, 1))),
    coupled(Toy(table(3, 3, 0), table(4, 3, 0), 3, (2, 1))),
    coupled(Toy(table(5, 3, 0), table(6, 3, 0), 3, (2, 1), chosen=True)),
    coupled(Toy(table(7, 3), table(8, 3), 3, (1, 1), warp=penalty, draft_warp=plain)),
]
POSITION = "position[met] + path_len[met]"
AGAIN = "source.race(target(at >= 0, at), sequence, position + path_len)"
# Name, function, what stands in it, what a mistake would put there.
Mutant = tuple[str, Callable[..., Any], str, str]
RULE: list[Mutant] = [
    ("one number for all positions", walk, POSITION, "position[met]"),
    ("a position is passed over", walk, POSITION, f"{POSITION} + 1"),
    ("any child is met", walk, " & (tokens[:, node] == token)", ""),
    ("any token's child is met", walk, "(parents[:, node] == at) & ", ""),
    ("row of the root", walk, "target(met, at[met])", "target(met, at[met] * 0)"),
    ("the bonus is what was met", walk, "token[met] = source", "source"),
    ("the bonus is drawn again", walk, "path_len, token)", f"path_len, {AGAIN})"),
    ("row of the drafter", Sampler.verify, "self.row(self.target,", "self.row(self.draft,"),
    ("row of the parent", Sampler.verify, "history + path, l", "history + path[:-1], l"),
    ("one number for all rounds", Sampler.verify, "[len(history)]]", "[1]]"),
    ("verified a position late", Sampler.verify, "[len(history)]]", "[len(history) + 1]]"),
    ("judged by rejection", Sampler.verify, "if self.coupled", "if not self.coupled"),
    ("drafts by numbers of their own", Sampler.propose, "if self.coupled", "if not self.coupled"),
    ("drafts by one number", Sampler.propose, "[len(ids)]]", "[0]]"),
    ("drafts by another sequence's", Sampler.propose, "self.sequence]", "self.sequence + 1]"),
]
LATE = ("the bonus is drawn again", "judged by rejection")  # seen after 10 seconds or more
HIGHEST = ".flip(-1).argmax(-1).neg().add(weights.shape[1] - 1)"
NUMBERS: list[Mutant] = [
    ("ties to the highest id", CounterSource.race, ".argmax(-1)", HIGHEST),
    ("a purpose shared with drafts", CounterSource.scores, "Purpose.RACE", "Purpose.DRAFT"),
    ("one number for all tokens", CounterSource.scores, "RACE, token)", "RACE, 0 * token)"),
    ("numbers by rank", CounterSource.scores, "RACE, token)", "RACE, torch.arange(len(token)))"),
    ("numbers of any sequence", CounterSource.scores, "sequence[row]", "0 * sequence[row]"),
    ("numbers of any position", CounterSource.scores, "position[row]", "0 * position[row]"),
    ("tokens without weight", CounterSource.scores, "-torch.inf", "9.0"),
    ("a number that is 0", CounterSource.scores, "(bits | 1)", "bits"),
    ("a number that is 1", CounterSource.scores, "(bits | 1)", "(bits + 1)"),
    ("the wrong sign", CounterSource.scores, "- exponential.log()", "+ exponential.log()"),
    ("weights for logarithms", CounterSource.scores, "token].log() -", "token] -"),
]


def rule_is_right() -> bool:
    """Lossless, and drafts are met exactly as often as two rows of one race meet."""
    target, drafter = table(20, 3, 0), table(21, 3, 0)
    luck = meeting(as_row(target((0,))), as_row(drafter((0,))))
    return (  # what is soon seen first
        first_drafts_met(coupled(Toy(target, drafter, 2, (1,)))) == luck != Fraction(1)
        and first_drafts_met(coupled(Toy(target, target, 3, (1, 1)))) == 1
        and all(is_lossless(toy) for toy in TOYS)
    )


def check_race() -> None:
    check_numbers()
    check_the_winner()
    check_the_law()


def test_the_code_as_it_is_survives() -> None:
    assert rule_is_right()
    check_race()


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [pytest.param(*m[1:], id=m[0], marks=[pytest.mark.fuzz] * (m[0] in LATE)) for m in RULE],
)
def test_mutants_of_the_rule_are_killed(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], old: str, new: str
) -> None:
    """By what comes out; an error does not count."""
    monkeypatch.setattr(function, "__code__", mutated(function, old, new))
    assert not rule_is_right()


@pytest.mark.parametrize(
    ("function", "old", "new"), [m[1:] for m in NUMBERS], ids=[m[0] for m in NUMBERS]
)
def test_mutants_of_the_numbers_are_killed(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], old: str, new: str
) -> None:
    monkeypatch.setattr(function, "__code__", mutated(function, old, new))
    with pytest.raises(AssertionError):
        check_race()
