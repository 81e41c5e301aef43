"""Nothing in, nothing out: ops on rows take no rows as they take some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kangaroo_kernels.draft_head import DraftHead

EMPTY = [(0, 3), (2, 0), (0, 0)]
WIDTH, VOCAB = 16, 37


def rows(shape: tuple[int, int]) -> tuple[Any, ...]:
    return torch.randn(*shape, WIDTH), torch.randn(VOCAB, WIDTH), torch.ones(WIDTH)


@pytest.mark.parametrize("shape", EMPTY)
def test_linear(linear: Callable[..., Any], shape: tuple[int, int]) -> None:
    x, weight, _ = rows(shape)
    assert linear(x, weight).shape == (*shape, VOCAB)


@pytest.mark.parametrize("shape", EMPTY)
def test_topk_confidence(topk_confidence: Callable[..., Any], shape: tuple[int, int]) -> None:
    h, weight, norm = rows(shape)
    for result in topk_confidence(h, DraftHead(weight), norm, 1e-5, 3):
        assert result.shape == (*shape, 3)


@pytest.mark.parametrize("shape", EMPTY)
def test_draft_logits(draft_logits: Callable[..., Any], shape: tuple[int, int]) -> None:
    h, weight, norm = rows(shape)
    assert draft_logits(h, DraftHead(weight), norm, 1e-5).shape == (*shape, VOCAB)


def test_rankings_lie_as_other_ops_ask(topk_confidence: Callable[..., Any]) -> None:
    """Whoever makes them: what follows asks for rows without gaps."""
    h, weight, norm = rows((2, 3))
    for result in topk_confidence(h, DraftHead(weight), norm, 1e-5, 3):
        assert result.stride() == (9, 3, 1)
