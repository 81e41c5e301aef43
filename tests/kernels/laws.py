"""The bitwise laws: a row's bits depend neither on other rows or their number nor on threads."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo_kernels.testing import assert_same_bits


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run with `count` torch threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_row_invariance(op: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """x [1, M, C], M at least 17: rows alone, among others, as a batch, next to NaN."""
    alone = [op(x[:, i : i + 1].clone())[0, 0] for i in range(x.shape[1])]
    for count in [*range(1, 18), x.shape[1]]:
        first = max(0, x.shape[1] - count) // 2  # not always the same rows in the same places
        among = op(x[:, first : first + count].clone())
        assert_same_bits(among[0], torch.stack(alone[first : first + count]))
    as_batch = op(x[0, :6].reshape(2, 3, -1).clone())
    assert_same_bits(as_batch.flatten(0, 1), torch.stack(alone[:6]))
    for neighbour in (0.0, torch.finfo(x.dtype).max, math.inf, math.nan):
        for kept in (0, 1, 7, 15, 16):
            crowd = torch.full_like(x[:, :17], neighbour)
            crowd[:, kept] = x[:, kept]
            assert_same_bits(op(crowd)[0, kept], alone[kept])


def check_thread_invariance(op: Callable[[], Tensor]) -> None:
    """One thread and two give the same bits."""
    with threads(1):
        one = op()
    with threads(2):
        assert_same_bits(op(), one)


def check_refusal(
    op: Callable[..., object],
    inputs: dict[str, Any],
    name: str,
    bad: object,
    *,
    says: str | None = None,
) -> None:
    """With `bad` as argument `name`: ValueError with the name (or `says`), expected and got."""
    op(**inputs)  # so that it is `bad` that is refused
    with pytest.raises(ValueError, match="expected") as refusal:
        op(**{**inputs, name: bad})
    message = str(refusal.value)
    assert re.search(rf"\b(?:{says or name})\b.*\bgot\b", message), message


def needs_values_on_the_host() -> None:
    """Skips on a GPU: there lengths are not read before a launch, kernels mask instead."""
    if torch.get_default_device().type != "cpu":
        pytest.skip("lengths live on the device")


def check_strided(op: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """A view that is not contiguous is refused, or read correctly."""
    spread = torch.stack([x, torch.full_like(x, math.nan)], dim=-1)[..., 0]
    assert not spread.is_contiguous()
    try:
        actual = op(spread)
    except ValueError:
        return
    assert_same_bits(actual, op(x))
