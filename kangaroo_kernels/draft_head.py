"""The head that drafts are taken from, and the chain of drafts that grows on the device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

QUANTIZED = (torch.int8, torch.float8_e4m3fn)
MAX_K = 16  # tokens of topk_confidence
ROWS_AT_ONCE = 4096  # of a weight that is copied: only they are made wide


class DraftHead(NamedTuple):
    """The target's own head, or a cheaper stand-in: acceptance depends on it, the output does not.

    Attributes:
        weight:    [V, C] in the dtype of the states, or int8 or float8_e4m3fn with `scale`.
        scale:     [V] float32, by which the rows of a quantized weight are multiplied.
        token_ids: [R] int32, strictly increasing: rows of the weight that may be drafted (FR-Spec,
            arXiv 2502.14856); None: all.
    """

    weight: Tensor
    scale: Tensor | None = None
    token_ids: Tensor | None = None

    @property
    def num_ids(self) -> int:
        """Tokens that may be drafted: R, or V."""
        return len(self.weight if self.token_ids is None else self.token_ids)


class DraftChain(NamedTuple):
    """One chain of drafts per sequence, appended to where the device's memory is.

    Attributes:
        tokens:    [B, T] int64; node 0 is the root.
        positions: [B, T] int32, RoPE indices.
        num_nodes: [B] int32, nodes so far, the root included.
        stopped:   [B] int32; not 0: nothing is drafted behind the newest node.
        threshold: [B] float32, the confidence below which drafting stops; the token that was not
            sure enough is kept.
    """

    tokens: Tensor
    positions: Tensor
    num_nodes: Tensor
    stopped: Tensor
    threshold: Tensor

    @classmethod
    def of_roots(
        cls, batch: int, num_nodes: int, threshold: float, device: torch.device
    ) -> DraftChain:
        """Roots alone, token 0 at position 0, with room for `num_nodes` in all."""

        def full(value: float, dtype: torch.dtype, *more: int) -> Tensor:
            return torch.full((batch, *more), value, dtype=dtype, device=device)

        return cls(
            full(0, torch.int64, num_nodes),
            full(0, torch.int32, num_nodes),
            full(1, torch.int32),
            full(0, torch.int32),
            full(threshold, torch.float32),
        )


def quantize(weight: Tensor, dtype: torch.dtype, token_ids: Tensor | None = None) -> DraftHead:
    """A copy of `weight` [V, C] for drafts alone, each row scaled by its largest element.

    Raises:
        ValueError: a dtype that is not int8 or float8_e4m3fn.
    """
    if dtype not in QUANTIZED:
        raise ValueError(f"dtype: expected one of {QUANTIZED}, got {dtype}")
    copy = torch.empty_like(weight, dtype=dtype, memory_format=torch.contiguous_format)
    scale = torch.empty(len(weight), dtype=torch.float32, device=weight.device)
    info = torch.iinfo(dtype) if dtype == torch.int8 else torch.finfo(dtype)
    for first in range(0, len(weight), ROWS_AT_ONCE):
        some = slice(first, first + ROWS_AT_ONCE)
        rows = weight[some].float()
        scale[some] = rows.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / info.max
        rows = rows / scale[some, None]
        copy[some] = (rows.round() if dtype == torch.int8 else rows).to(dtype)
    return DraftHead(copy, scale, token_ids)
