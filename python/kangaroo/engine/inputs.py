"""Prompts as transformers' generate takes them: one, or several of unequal length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kangaroo_kernels import UnsupportedError

InputIds = Tensor | Sequence[int] | Sequence[Sequence[int]]


def rows_of(input_ids: InputIds) -> list[list[int]]:
    """The rows in `input_ids`, with the padding that they may have.

    Raises:
        ValueError: not [B, T] integers, nor a list of them, nor a list of such lists.
    """
    if isinstance(input_ids, Tensor):
        tensors = list(input_ids) if input_ids.ndim == 2 else [input_ids[None]]
        if input_ids.ndim != 2:
            raise ValueError(f"input_ids: expected shape [B, T], got {list(input_ids.shape)}")
    elif len(input_ids) and isinstance(input_ids[0], Sequence | Tensor):
        tensors = [torch.as_tensor(row) for row in input_ids]
    else:
        tensors = [torch.as_tensor(input_ids)]
    for row in tensors:
        if row.numel() and (row.is_floating_point() or row.dtype == torch.bool):
            raise ValueError(f"input_ids: expected integers, got {row.dtype}")
        if row.ndim != 1:
            raise ValueError(f"input_ids: expected shape [B, T], got rows of {list(row.shape)}")
    if not tensors:
        raise ValueError("input_ids: expected at least one prompt, got none")
    return [[int(token) for token in row.tolist()] for row in tensors]


def unpadded(
    rows: list[list[int]], attention_mask: Tensor | None, pad_id: int | None
) -> list[list[int]]:
    """The prompts: rows without the padding on their left.

    Args:
        attention_mask: [B, T], ones at tokens; None: leading `pad_id` are padding where there are
            several rows, as transformers has it.
        pad_id: None: no token is padding.

    Raises:
        ValueError: the mask is not shaped as the rows are.
        UnsupportedError: padding anywhere but on the left.
    """
    if attention_mask is None:
        starts = [_num_leading(row, pad_id) if len(rows) > 1 else 0 for row in rows]
        return [row[start:] for row, start in zip(rows, starts, strict=True)]
    mask = torch.as_tensor(attention_mask).bool()
    if list(mask.shape) != [len(rows), len(rows[0])] or len(set(map(len, rows))) > 1:
        raise ValueError(
            f"attention_mask: expected shape {[len(rows), len(rows[0])]}, got {list(mask.shape)}"
        )
    if bool((mask[:, :-1] & ~mask[:, 1:]).any()) or not bool(mask[:, -1:].all()):
        raise UnsupportedError("attention_mask: expected padding on the left alone")
    return [row[len(row) - int(kept) :] for row, kept in zip(rows, mask.sum(1), strict=True)]


def _num_leading(row: list[int], pad_id: int | None) -> int:
    return next((n for n, token in enumerate(row) if token != pad_id), 0)
