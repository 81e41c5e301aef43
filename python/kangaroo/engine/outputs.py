"""What generate returns, with transformers' shapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from kangaroo.engine.stats import Speculation


@dataclass
class GenerateOutput(ModelOutput):
    """What `return_dict_in_generate=True` returns; B counts every sequence of every prompt.

    Attributes:
        sequences: [B, T + new] int64, prompts and continuations.
        logits: with `output_logits=True`, one [B, V] float32 for every new token: the target's
            own, before any processor; NaN behind the end of a sequence.
        scores: with `output_scores=True`, the same behind all processors and warpers.
        logprobs: with `output_logprobs=True`, [B, new] float32: of every new token under the
            target's own logits; NaN behind the end of a sequence.
        speculation: how drafting went, in all of them together.
    """

    sequences: Tensor | None = None
    scores: tuple[Tensor, ...] | None = None
    logits: tuple[Tensor, ...] | None = None
    logprobs: Tensor | None = None
    speculation: Speculation | None = None


def padded(rows: Sequence[list[int]], pad_id: int, *, left: bool = False) -> Tensor:
    """[B, T] int64, as long as the longest."""
    longest = max(map(len, rows))
    filled = [[pad_id] * (longest - len(row)) for row in rows]
    pairs = zip(filled, rows, strict=True)
    return torch.tensor([fill + row if left else row + fill for fill, row in pairs])


def stacked(sequences: Iterable[Sequence[Tensor | None]]) -> Tensor:
    """[B, new, V] float32 of the rows [n, V] that rounds keep, sequence by sequence; NaN behind
    their ends.
    """
    kept = [torch.cat([rows for rows in rounds if rows is not None]) for rounds in sequences]
    return torch.nn.utils.rnn.pad_sequence(kept, batch_first=True, padding_value=torch.nan)


def logprobs_of(logits: Tensor, new: Tensor) -> Tensor:
    """[B, new] float32: of tokens `new` [B, new] under `logits` [B, new, V]."""
    return logits.log_softmax(-1).take_along_dim(new[..., None], -1)[..., 0]
