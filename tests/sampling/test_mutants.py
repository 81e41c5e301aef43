"""Each of these mistakes has been made in some engine; the exact law sees every one of them."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from fractions import Fraction
from types import CodeType
from typing import Any

import pytest

from kangaroo.draft import chains
from kangaroo.engine import decode
from kangaroo.sampling import accept
from kangaroo.sampling.sampler import Sampler
from tests.sampling.exact import Law, distance
from tests.sampling.toys import Toy, cold, penalty, plain, table, top_k

TOYS = [
    Toy(table(1, 3, 0), table(2, 3, 0), 3, (1, 1)),
    Toy(table(3, 3, 0), table(4, 3, 0), 3, (2, 1)),
    Toy(table(5, 4, 0), table(6, 4, 0), 2, (3,)),
    Toy(table(7, 3, 0), table(8, 3, 0), 3, (2, 1), chosen=True),
    Toy(table(9, 3, 0), table(10, 3, 0), 4, (1, 1, 1), Fraction(1, 2), eos_id=1),
    Toy(table(11, 3), table(12, 3), 3, (1, 1), warp=penalty, draft_warp=plain),
    Toy(table(13, 3), table(14, 3), 3, (2,), warp=top_k, draft_warp=cold),
]
KEEPS = "trees[b].add(drafted[b][0], parent=len(trees[b]) - 1)"
UNSURE = "trees[b].drawn_from[len(trees[b]) - 1][0, drafted[b][0]] < 0.4"
DROPS = f"if {UNSURE}:\n{12 * ' '}sure[b][0] = -1\n{12 * ' '}continue\n{8 * ' '}{KEEPS}"
# Name, function, what stands in it, what a mistake would put there.
MUTANTS: list[tuple[str, Callable[..., Any], str, str]] = [
    ("accepts with p", accept.accept, " / q[asked, token]", ""),
    ("accepts always", accept.accept, "p[asked, token] / q", "q[asked, token] / q"),
    ("accepts with q / p", accept.accept, "p[asked, token] / q", "q[asked, token] / p"),
    ("relaxed acceptance", accept.accept, "q[asked, token], place", "q[asked, token] * 2, place"),
    ("residual is p", accept.residual, "(p - q).clip(0)", "p + 0"),
    ("residual is q - p", accept.residual, "(p - q)", "(q - p)"),
    ("residual is |p - q|", accept.residual, "(p - q).clip(0)", "abs(p - q)"),
    ("siblings see the first p", accept.accept, "= residual(p[lost], q[lost])", "= p[lost]"),
    ("q keeps the child", accept.accept, "= without(q[lost], tokens[lost, node])", "= q[lost]"),
    ("q is not renormalised", accept.without, "normalised(rest)", "rest"),
    ("q is read again", accept.accept, "tries == 0", "tries >= 0"),
    ("q of the root", accept.accept, "draft(first, at[first])", "draft(first, at[first] * 0)"),
    ("chosen counts as half sure", accept.certain, "token] = 1", "token] = 2"),
    ("p is not advanced", accept.accept, "= target(kept, at[kept])", "= p[kept]"),
    ("p of the root", accept.accept, "target(kept, at[kept])", "target(kept, at[kept] * 0)"),
    ("attempts go on counting", accept.accept, "rejected[kept] = 0", "rejected[kept] += 1"),
    ("one number for all siblings", accept.accept, "ACCEPT, tries", "ACCEPT, 0 * tries"),
    ("one number for all positions", accept.accept, "position[kept] += 1", "position[kept] += 0"),
    ("residual by the accept number", accept.accept, "TARGET, rejected", "ACCEPT, rejected - 1"),
    ("draft by the accept number", Sampler.propose, "Purpose.DRAFT", "Purpose.ACCEPT"),
    ("draft by one number", Sampler.propose, "[len(ids)]]", "[0]]"),
    ("row of the parent", Sampler.verify, "history + path, l", "history + path[:-1], l"),
    ("q a little off", Sampler.propose, "DRAFT, 0)), q", "DRAFT, 0)), (99 * q + q**0 / 3) / 100"),
    ("drops what is unsure", chains.grow, KEEPS, DROPS),
    ("tokens behind the end", decode.until, "[:count], True", "[: count + 1], True"),
]


@pytest.fixture(scope="module")
def expected() -> list[Law[tuple[int, ...]]]:
    return [toy.expected() for toy in TOYS]


def mutated(function: Callable[..., Any], old: str, new: str) -> CodeType:
    """The function's code with `new` in the one place of `old`."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, (function, old)
    made: dict[str, Any] = {}
    exec("from __future__ import annotations\n" + source.replace(old, new), {}, made)
    code: CodeType = made[function.__name__].__code__
    return code


def test_the_code_as_it_is_survives(expected: list[Law[tuple[int, ...]]]) -> None:
    for toy, law in zip(TOYS, expected, strict=True):
        assert distance(toy.speculative()[0], law) == 0


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [mutant[1:] for mutant in MUTANTS],
    ids=[mutant[0] for mutant in MUTANTS],
)
def test_mutants_are_killed(
    monkeypatch: pytest.MonkeyPatch,
    expected: list[Law[tuple[int, ...]]],
    function: Callable[..., Any],
    old: str,
    new: str,
) -> None:
    """By a law that is another one; an error does not count."""
    monkeypatch.setattr(function, "__code__", mutated(function, old, new))
    pairs = zip(TOYS, expected, strict=True)
    assert any(distance(toy.speculative()[0], law) > 0 for toy, law in pairs)
