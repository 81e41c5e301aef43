"""Where random decisions come from: a number is a function of what it decides, and of a seed."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from kangaroo_kernels.draws import RACE
from kangaroo_kernels.philox import WORD, philox

SEEDS = 2**64


class Purpose(IntEnum):
    """What a number decides; numbers of different purposes are independent."""

    DRAFT = 0  # which token is drafted
    ACCEPT = 1  # whether a drafted token is kept
    TARGET = 2  # the token that verification writes itself: bonus, or what is left of the target
    RACE = RACE  # how well one token does at one position, whosever row is asked


class Place(NamedTuple):
    """The decision that a number is for. Whole numbers below 2^32, arrays [M] of int64 or int.

    A position is decided once, and only what is decided by numbers of earlier positions says how:
    a draft that was thrown away has spoilt no number of the positions behind it.

    Attributes:
        sequence: which of the sequences with this seed.
        position: of the token to be decided, counted from the first token of the prompt.
        purpose: see :class:`Purpose`.
        attempt: siblings tried before at this position. So no residual is drawn (attempt 1 or more)
            with the number of a bonus token (attempt 0). In a race: the token.
    """

    sequence: Any
    position: Any
    purpose: Purpose
    attempt: Any


class Source(Protocol):
    """Makes M decisions at once. Arrays are torch's, or NumPy's of any kind of number."""

    def accept(self, probability: Any, place: Place) -> Any:
        """[M] bool, each true with its probability [M]; 1 and above: always, 0: never."""
        ...

    def draw(self, weights: Any, place: Place) -> Any:
        """[M] int64, each drawn in proportion to a row of weights [M, V], none of them negative."""
        ...

    def race(self, weights: Any, sequence: Any, position: Any) -> Any:
        """As `draw`, by numbers of every token at a position [M] of a sequence [M]: rows that are
        alike draw the same token there, most of the time.
        """
        ...

    def scores(self, weights: Any, sequence: Any, position: Any) -> Any:
        """[M, V], by which `race` ranks; only drafters ask."""
        ...


class CounterSource:
    """Decisions by Philox: every number is a function of the seed and its place alone.

    Not of the device, the batch, or which numbers were asked for before.

    Raises:
        ValueError: the seed is no whole number in [0, 2^64).
    """

    def __init__(self, seed: int):
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < SEEDS:
            raise ValueError(f"seed: expected a whole number in [0, 2^64), got {seed!r}")
        self.key = (seed & WORD, seed >> 32)

    def bits(self, place: Place) -> Tensor:
        """[M] int64 in [0, 2^53)."""
        counter: Any = (place.position, place.sequence, int(place.purpose), place.attempt)
        if all(x.device.type == "cpu" for x in counter if isinstance(x, Tensor)):
            # The same bits; NumPy's operations cost a seventh of torch's to start.
            counter = tuple(x.numpy() if isinstance(x, Tensor) else x for x in counter)
        high, low, _, _ = philox(counter, self.key)
        return torch.as_tensor((high >> 5 << 26) | (low >> 6))

    def uniform(self, place: Place) -> Tensor:
        """[M] float64 in [0, 1), multiples of 2^-53."""
        return self.bits(place).double() * 2.0**-53

    def accept(self, probability: Tensor, place: Place) -> Tensor:
        """See :class:`Source`. What is no number is refused."""
        return self.uniform(place) < probability

    def draw(self, weights: Tensor, place: Place) -> Tensor:
        """See :class:`Source`: the first token at which the running sum in float64 exceeds the
        uniform's part of the whole; a token of no weight never is.

        Raises:
            ValueError: a row that is no distribution: nothing in it is possible, or something is
                not finite.
        """
        sums = weights.double().cumsum(-1)
        total = sums[:, -1:]
        require_weight(total)
        uniform = self.uniform(place)[:, None]
        return torch.searchsorted(sums, uniform * total, right=True)[:, 0]

    def race(self, weights: Tensor, sequence: Tensor, position: Tensor) -> Tensor:
        """See :class:`Source`: the token with the best of :meth:`scores`; ties to the lowest id."""
        return self.scores(weights, sequence, position).argmax(-1)

    def scores(self, weights: Tensor, sequence: Tensor, position: Tensor) -> Tensor:
        """log(weight) plus a Gumbel number of the token's own, [M, V] float64: the best of a row is
        drawn in proportion to the weights, the best k are k draws without replacement.

        Finite where there is weight, whatever its scale; -inf where there is none. Only tokens with
        weight cost a number: behind top-k, a few dozen of a large vocabulary. A token's chances are
        right to 2^-52.

        Source: Gumbel's maximum; rows that share numbers: Daliri, Musco, Suresh (2408.07978).

        Raises:
            ValueError: as :meth:`draw`.
        """
        weights = weights.double()
        require_weight(weights.sum(-1))
        row, token = weights.nonzero(as_tuple=True)
        bits = self.bits(Place(sequence[row], position[row], Purpose.RACE, token))
        # Odd multiples of 2^-53: never 0 and never 1, so that both logarithms are finite.
        exponential = -((bits | 1).double() * 2.0**-53).log()
        scores = torch.full_like(weights, -torch.inf)
        scores[row, token] = weights[row, token].log() - exponential.log()
        return scores


def require_weight(total: Tensor) -> None:
    """Refuse sums of weights that are no distribution's; see :meth:`CounterSource.draw`."""
    if not bool(((total > 0) & total.isfinite()).all()):
        raise ValueError(
            f"weights: expected a positive finite sum, got {total.flatten().tolist()}: "
            "the logits are not finite, or no token is possible"
        )
