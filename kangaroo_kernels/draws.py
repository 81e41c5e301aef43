"""How tokens are drawn from rows of logits: what each sequence asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

RACE = 3  # word of the counter of all numbers of races (Purpose.RACE)


class Draw(NamedTuple):
    """Of one sequence: from softmax(logits / temperature), of which the warps keep a part, in the
    order in which they stand here; tokens of equal logits stay or go together.

    Of those that are kept the best score wins, in proportion to the weights; the best k are k draws
    without replacement. score = (logit - the largest) / temperature - log(-log u), in float64; u is
    2^-53 times the first 53 bits, the last of them set, of Philox 4x32-10 of (position, sequence,
    RACE, token) under the seed. So rows that are alike draw the same token at a place, most of the
    time. At temperature 0 score = logit - the largest.

    Source: Gumbel's maximum; rows that share numbers: Daliri, Musco, Suresh (2408.07978).

    Attributes:
        temperature: 0: no number enters, every token is the most probable, and no warp matters.
        top_k: kept are so many of the most probable tokens; 0: all.
        top_p: of these, tokens behind more probable ones that weigh less than this part of all; 1:
            all, also those that weigh nothing beside the others in float64.
        min_p: of these, tokens with at least this part of the probability of the best.
        seed: in [0, 2^64).
        sequence: in [0, 2^32), its number among those of one seed.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    sequence: int = 0


# Of the fields of `Draws`.
DTYPES = torch.float64, torch.int32, torch.float64, torch.float64, torch.int64, torch.int64


class Draws(NamedTuple):
    """The draws of B sequences, where the device reads them.

    Attributes:
        temperature, top_p, min_p: [B] float64.
        top_k: [B] int32.
        seed: [B] int64, the 64 bits.
        sequence: [B] int64.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    seed: Tensor
    sequence: Tensor

    @classmethod
    def of(cls, draws: Iterable[Draw], device: torch.device) -> Draws:
        """New tensors."""
        signed = (draw._replace(seed=draw.seed - (draw.seed >> 63 << 64)) for draw in draws)
        columns = zip(zip(*signed, strict=True), DTYPES, strict=True)
        return cls(*(torch.tensor(column, dtype=d, device=device) for column, d in columns))
