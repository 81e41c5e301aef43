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
    tensors = _rows("input_ids", input_ids)
    for row in tensors:
        if row.numel() and (row.is_floating_point() or row.dtype == torch.bool):
            raise ValueError(f"input_ids: expected integers, got {row.dtype}")
    if not tensors:
        raise ValueError("input_ids: expected at least one prompt, got none")
    return [[int(token) for token in row.tolist()] for row in tensors]


def unpadded(
    rows: list[list[int]], attention_mask: InputIds | None, pad_id: int | None
) -> list[list[int]]:
    """The prompts: rows without the padding on their left.

    Args:
        attention_mask: as the rows were given, ones at tokens; None: leading `pad_id` are padding.
        pad_id: None: no token is padding.

    Raises:
        ValueError: the mask is not shaped as the rows are.
        UnsupportedError: padding anywhere but on the left.
    """
    if attention_mask is None:
        return [row[_num_leading(row, pad_id) :] for row in rows]
    masks = [mask.bool().tolist() for mask in _rows("attention_mask", attention_mask)]
    expected, got = ([len(row) for row in each] for each in (rows, masks))
    if expected != got:
        shapes = [_shape(expected), _shape(got)]
        raise ValueError(f"attention_mask: expected shape {shapes[0]}, got {shapes[1]}")
    if any(mask != sorted(mask) or not all(mask[-1:]) for mask in masks):
        raise UnsupportedError("attention_mask: expected padding on the left alone")
    return [row[len(row) - sum(mask) :] for row, mask in zip(rows, masks, strict=True)]


def _rows(name: str, values: InputIds) -> list[Tensor]:
    """Each [T]."""
    if isinstance(values, Tensor):
        if values.ndim != 2:
            raise ValueError(f"{name}: expected shape [B, T], got {list(values.shape)}")
        return list(values)
    several = len(values) and torch.as_tensor(values[0]).ndim
    tensors = [torch.as_tensor(row) for row in (values if several else [values])]
    for row in tensors:
        if row.ndim != 1:
            raise ValueError(f"{name}: expected shape [B, T], got rows of {list(row.shape)}")
    return tensors


def _shape(lengths: list[int]) -> list[int] | str:
    same = len(set(lengths)) == 1
    return [len(lengths), lengths[0]] if same else f"rows of {lengths}"


def _num_leading(row: list[int], pad_id: int | None) -> int:
    return next((n for n, token in enumerate(row) if token != pad_id), 0)
