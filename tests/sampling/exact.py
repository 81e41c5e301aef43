"""Every outcome of every random decision, each with its exact weight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from fractions import Fraction
from functools import cache
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from kangaroo.sampling.source import Place

ZERO, ONE = Fraction(0), Fraction(1)
Outcome = TypeVar("Outcome", bound=Hashable)
Law = dict[Outcome, Fraction]
Simplex = tuple[Fraction, tuple[tuple[Fraction, ...], ...]]  # its part of the whole, its corners
Region = tuple[Simplex, ...]


class Branches:
    """A Source that takes the branches it is told to, and the first possible one behind them.

    The number of a place is uniform in [0, 1); of one that was asked before it is known in which
    interval it lies, and it is uniform there. So a number that is used twice is the same number.
    The numbers of a race are exponential; their ratios alone count: a uniform point of a simplex.

    Attributes:
        weight: probability of the branches taken.
        taken: (branch, number of possible branches) of every decision.
    """

    def __init__(self, script: list[int]):
        self.script, self.weight = script, ONE
        self.taken: list[tuple[int, int]] = []
        self.known: dict[tuple[int, ...], tuple[Fraction, Fraction]] = {}
        self.regions: dict[tuple[int, int], Region] = {}

    def accept(self, probability: Any, place: Place) -> Tensor:
        (p,) = probability
        return torch.tensor([self._decide([ZERO, min(max(p, ZERO), ONE), ONE], place) == 0])

    def draw(self, weights: Any, place: Place) -> Tensor:
        (row,) = weights
        total = sum(row)
        bounds = [ZERO, *(running / total for running in accumulate(row))]
        return torch.tensor([self._decide(bounds, place)])

    def race(self, weights: Any, sequence: Any, position: Any) -> Tensor:
        (row,) = weights
        name = (int(sequence), int(position))
        parts = won(self.regions.get(name) or whole(len(row)), tuple(row))
        token = self._branch([sum((size for size, _ in part), ZERO) for part in parts])
        self.regions[name] = parts[token]
        return torch.tensor([token])

    def _decide(self, bounds: list[Fraction], place: Place) -> int:
        """In which of the intervals between rising bounds the number lies."""
        name = tuple(int(part) for part in place)
        low, high = self.known.get(name, (ZERO, ONE))
        pieces = [(max(low, a), min(high, b)) for a, b in pairwise(bounds)]
        chosen = self._branch([max(b - a, ZERO) for a, b in pieces])
        self.known[name] = pieces[chosen]
        return chosen

    def _branch(self, sizes: list[Fraction]) -> int:
        """One of some sets, in proportion to their sizes."""
        possible = [i for i, size in enumerate(sizes) if size]
        step = len(self.taken)
        branch = self.script[step] if step < len(self.script) else 0
        self.taken.append((branch, len(possible)))
        chosen = possible[branch]
        self.weight *= sizes[chosen] / sum(sizes)
        return chosen


@cache
def whole(num_tokens: int) -> Region:
    """All points whose coordinates, one for each token, are positive and sum to 1."""
    corners = [tuple(ONE * (i == j) for j in range(num_tokens)) for i in range(num_tokens)]
    return ((ONE, tuple(corners)),)


@cache
def won(region: Region, row: tuple[Fraction, ...]) -> tuple[Region, ...]:
    """For each token the part of a region where its coordinate over its weight is the least."""

    def part(token: int) -> Region:
        left = region
        for rival in range(len(row)):
            left = above(left, {rival: row[token], token: -row[rival]}) if rival != token else left
        return left

    return tuple(part(token) for token in range(len(row)))


def above(region: Region, normal: dict[int, Fraction]) -> Region:
    """What of a region lies above a plane through the origin, in simplices again."""
    todo, kept = list(region), []
    while todo:
        size, corners = todo.pop()
        heights = [sum((corner[i] * n for i, n in normal.items()), ZERO) for corner in corners]
        high, low = max(heights), min(heights)
        if low >= 0:
            kept.append((size, corners))
        elif high > 0:  # cut in two where the plane meets the edge from the highest to the lowest
            top, bottom, part = heights.index(high), heights.index(low), high / (high - low)
            ends = zip(corners[top], corners[bottom], strict=True)
            middle = tuple(a + part * (b - a) for a, b in ends)
            for moved, share in ((bottom, part), (top, 1 - part)):
                cut = corners[:moved] + (middle,) + corners[moved + 1 :]
                todo.append((size * share, cut))
    return tuple(kept)


def law_of(experiment: Callable[[Branches], Outcome]) -> tuple[Law[Outcome], int]:
    """What comes of an experiment, with probabilities; and how many branches there were."""
    law: Law[Outcome] = defaultdict(Fraction)
    script: list[int] | None = []
    num_paths = 0
    while script is not None:
        source = Branches(script)
        law[experiment(source)] += source.weight
        num_paths += 1
        taken = source.taken
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        script = [b for b, _ in taken[:-1]] + [taken[-1][0] + 1] if taken else None
    return dict(law), num_paths


def distance(a: Law[Outcome], b: Law[Outcome]) -> Fraction:
    """Total variation; 0 if and only if the laws are equal."""
    return sum((abs(a.get(x, ZERO) - b.get(x, ZERO)) for x in a.keys() | b.keys()), ZERO) / 2


class Fractions(np.ndarray):
    """An array of Fractions that torch's tensors select from."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_as_numpy(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_as_numpy(key), value)


def _as_numpy(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(_as_numpy(part) for part in key)
    return key.numpy() if isinstance(key, Tensor) else key


def as_row(weights: list[int]) -> Any:
    """[1, V] probabilities in proportion to weights."""
    total = sum(weights)
    return np.array([[Fraction(w, total) for w in weights]], dtype=object).view(Fractions)
