"""The race in float64: its numbers, its winner at the corners, and its law."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kangaroo.sampling.accept import without
from kangaroo.sampling.source import CounterSource, Place, Purpose
from kangaroo_kernels.philox import philox
from tests.sampling.test_chi_square import ALPHA, p_value

ROW = torch.tensor([[0.0, 0.5, 0.0, 0.25, 0.15, 0.1]], dtype=torch.float64)
SEED = 2**40 + 7
ALL = 2**53 - 1  # the largest number


class Fixed(CounterSource):
    """Every token's number is the one it is given."""

    def __init__(self, bits: int):
        self.number = bits

    def bits(self, place: Place) -> Tensor:
        return torch.full_like(place.attempt, self.number)


def at(sequence: int, position: int) -> tuple[Tensor, Tensor]:
    return torch.tensor([sequence]), torch.tensor([position])


def check_numbers() -> None:
    """Functions of seed, sequence, position and token id alone, as they were published."""
    source = CounterSource(SEED)
    for sequence, position in ((0, 1), (3, 1), (3, 8)):
        scores = source.scores(ROW, *at(sequence, position))[0].tolist()
        for token, weight in enumerate(ROW[0].tolist()):
            counter = (position, sequence, int(Purpose.RACE), token)
            high, low, _, _ = philox(counter, (SEED % 2**32, SEED // 2**32))
            uniform = ((high >> 5 << 26 | low >> 6) | 1) / 2**53
            expected = math.log(weight / -math.log(uniform)) if weight else -math.inf
            assert scores[token] == pytest.approx(expected, rel=1e-12)
    assert Purpose.RACE not in (Purpose.DRAFT, Purpose.ACCEPT, Purpose.TARGET)


def check_the_winner() -> None:
    """Whatever the numbers: possible, and of equals the first."""
    for bits in (0, 1, 2**52, ALL):
        for scale in (1.0, 1e-300, 1e300):
            scores = Fixed(bits).scores(ROW * scale, *at(0, 0))
            assert scores.isfinite().equal(ROW > 0)
            assert Fixed(bits).race(ROW * scale, *at(0, 0)).tolist() == [1]
        equals = torch.tensor([[0.0, 0.0, 0.2, 0.4, 0.4]], dtype=torch.float64)
        assert Fixed(bits).race(equals, *at(0, 0)).tolist() == [3]
    smallest = torch.tensor([[0.0, 5e-324, 0.0]], dtype=torch.float64)
    assert CounterSource(0).race(smallest, *at(0, 0)).tolist() == [1]


def check_the_law() -> None:
    """Chi-square of the winners, and of the winners once those are out of the race."""
    position = torch.arange(100_000)
    sequence, rows = torch.zeros_like(position), ROW.repeat(len(position), 1)
    source = CounterSource(11)
    first = source.race(rows, sequence, position)
    assert p_value(first.bincount(minlength=6), ROW[0]) > ALPHA
    second = source.race(without(rows, first), sequence, position)
    pairs = (ROW[0][:, None] * without(ROW.repeat(6, 1), torch.arange(6))).flatten()
    assert p_value((6 * first + second).bincount(minlength=36), pairs) > ALPHA


def test_numbers() -> None:
    check_numbers()


def test_the_winner() -> None:
    check_the_winner()


def test_the_law() -> None:
    check_the_law()


def test_rows_that_are_alike_draw_alike() -> None:
    """As often as the theory says, which is at least (1 - d) / (1 + d)."""
    generator = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 8, generator=generator, dtype=torch.float64).softmax(-1)
    position = torch.arange(100_000)
    sequence, source = torch.zeros_like(position), CounterSource(1)
    drawn = [source.race(row.repeat(len(position), 1), sequence, position) for row in (p, q)]
    met = drawn[0].eq(drawn[1]).double().mean()
    ratios = torch.maximum(p[None] / p[:, None], q[None] / q[:, None])
    expected = (1 / ratios.sum(1)).sum()
    d = (p - q).abs().sum() / 2
    assert (1 - d) / (1 + d) <= expected <= 1 - d
    assert abs(met - expected) < 5 * (expected * (1 - expected) / len(position)).sqrt()


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_rows_that_are_no_distribution(value: float) -> None:
    rows = torch.cat([ROW, torch.full((1, 6), value, dtype=torch.float64)])
    with pytest.raises(ValueError, match="^weights: expected a positive finite sum, got "):
        CounterSource(0).race(rows, torch.zeros(2).long(), torch.arange(2))


def test_a_row_does_not_see_its_neighbours() -> None:
    """The same scores alone and among rows of other supports."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.rand(40, 50, generator=generator, dtype=torch.float64)
    rows[rows < 0.5] = 0
    sequence, position = torch.arange(40) % 3, torch.arange(40)
    together = CounterSource(2).scores(rows, sequence, position)
    for n in range(40):
        some = slice(n, n + 1)
        alone = CounterSource(2).scores(rows[some], sequence[some], position[some])
        assert alone.equal(together[some])
