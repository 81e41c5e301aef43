"""Random numbers: the published generator, one number for one decision, the same everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kangaroo.sampling.source import CounterSource, Place, Purpose
from kangaroo_kernels.philox import philox

# Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, result.
PUBLISHED = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
INTEGERS = {
    "int": int,
    "uint64": lambda word: np.array([word], dtype=np.uint64),
    "int64": lambda word: np.array([word], dtype=np.int64),
    "torch": lambda word: torch.tensor([word]),
}
ROW = torch.tensor([[0.0, 0.5, 0.0, 0.25, 0.25, 0.0]], dtype=torch.float64)


def place(position: Any = 5, purpose: Purpose = Purpose.ACCEPT, attempt: Any = 0) -> Place:
    return Place(torch.tensor([3]), torch.as_tensor(position).reshape(-1), purpose, attempt)


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_the_published_vectors(kind: str, counter: Any, key: Any, expected: Any) -> None:
    make = INTEGERS[kind]
    words = philox(tuple(make(word) for word in counter), tuple(make(word) for word in key))
    assert tuple(int(np.asarray(word).item()) for word in words) == expected


@pytest.mark.gpu
def test_the_published_vectors_on_a_gpu() -> None:
    for counter, key, expected in PUBLISHED:
        words = philox(tuple(torch.tensor([word]) for word in counter), key)
        assert words[0].is_cuda
        assert tuple(int(np.asarray(word).item()) for word in words) == expected


def test_a_number_is_a_function_of_its_place_and_seed() -> None:
    """Alone or among others, in any order, asked once or twice."""
    positions = torch.arange(50)
    together = CounterSource(7).uniform(place(positions))
    source = CounterSource(7)
    alone = torch.cat([source.uniform(place(position)) for position in reversed(positions)])
    assert together.equal(alone.flip(0))
    assert not together.equal(CounterSource(8).uniform(place(positions)))
    assert not together.equal(CounterSource(7 + 2**32).uniform(place(positions)))


def test_no_two_places_share_a_number() -> None:
    source = CounterSource(0)
    numbers = {
        float(source.uniform(Place(torch.tensor([sequence]), position, purpose, attempt)))
        for sequence in range(6)
        for position in range(12)
        for purpose in Purpose
        for attempt in range(6)
    }
    assert len(numbers) == 6 * 12 * len(Purpose) * 6


def test_numbers_are_uniform_and_of_53_bits() -> None:
    uniform = CounterSource(1).uniform(place(torch.arange(200_000)))
    assert 0 <= float(uniform.min()) < 1e-4
    assert 1 - 1e-4 < float(uniform.max()) < 1
    counts = torch.histc(uniform, 64, 0, 1)
    chi_square = float(((counts - 3125) ** 2 / 3125).sum())
    assert chi_square < 140  # 63 degrees of freedom: one in ten million is above
    odd = (uniform * 2**53).long() & 1
    assert 0.49 < float(odd.double().mean()) < 0.51


class Fixed(CounterSource):
    """Every number is the one it is given."""

    def __init__(self, uniform: float):
        self.number = uniform

    def uniform(self, place: Place) -> torch.Tensor:
        return torch.full((1,), self.number, dtype=torch.float64)


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 1), (0.49, 1), (0.5, 3), (0.75, 4), (1 - 2**-53, 4)]
)
@pytest.mark.parametrize("scale", [1.0, 3.0, 0.7, 1e-30])
def test_draws_by_the_running_sum(uniform: float, token: int, scale: float) -> None:
    """Never a token without weight, at either end of the numbers or between."""
    if uniform != 0.75 or scale == 1.0:  # between two tokens, rounding may take either
        assert Fixed(uniform).draw(ROW * scale, place()).tolist() == [token]


@pytest.mark.parametrize(
    ("probability", "at_least", "below_one"),
    [(1.0, True, True), (1.5, True, True), (0.0, False, False), (float("nan"), False, False)],
)
def test_certain_acceptance(probability: float, at_least: bool, below_one: bool) -> None:
    row = torch.tensor([probability], dtype=torch.float64)
    assert Fixed(0.0).accept(row, place()).tolist() == [at_least]
    assert Fixed(1 - 2**-53).accept(row, place()).tolist() == [below_one]


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_rows_that_are_no_distribution(value: float) -> None:
    rows = torch.cat([ROW, torch.full((1, 6), value, dtype=torch.float64)])
    with pytest.raises(ValueError, match="^weights: expected a positive finite sum, got "):
        CounterSource(0).draw(rows, place(torch.arange(2)))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, "7"])
def test_seeds_that_are_none(seed: Any) -> None:
    with pytest.raises(ValueError, match=r"^seed: expected a whole number in \[0, 2\^64\), got"):
        CounterSource(seed)
