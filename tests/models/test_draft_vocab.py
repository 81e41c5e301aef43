"""Draft vocabularies: chosen by frequency, written, and read by the target they were made for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kangaroo.models.draft_vocab import (
    most_frequent,
    read_draft_vocab,
    save_draft_vocab,
    vocab_tensor,
)
from tests.factories import edit_json

COUNTS = torch.tensor([0, 5, 9, 5, 0, 9, 1])


def test_the_most_frequent_and_those_that_end_a_sequence() -> None:
    assert most_frequent(COUNTS, 3, []) == [1, 2, 5]  # of two equals the lower
    assert most_frequent(COUNTS, 3, [4]) == [2, 4, 5]
    assert most_frequent(COUNTS, 2, [4, 0]) == [0, 4]
    assert most_frequent(COUNTS, 7, [2, 2]) == list(range(7))


@pytest.mark.parametrize(
    ("size", "always", "message"),
    [
        (0, [], "^size: expected 1 to 7, got 0$"),
        (8, [], "^size: expected 1 to 7, got 8$"),
        (1, [2, 3], "^size: expected 2 to 7, got 1$"),
        (3, [7], r"^eos_token_id: expected ids in \[0, 7\), got 7$"),
    ],
)
def test_sizes_that_cannot_be(size: int, always: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        most_frequent(COUNTS, size, always)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "ids.json"
    assert save_draft_vocab(file, [1, 2, 5], COUNTS, "hash") == pytest.approx(23 / 29)
    assert read_draft_vocab(file, 7, "hash") == [1, 2, 5]
    with pytest.raises(ValueError, match="^counts: expected at least one token, got none$"):
        save_draft_vocab(file, [1], COUNTS * 0, "hash")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "other"),
        ("version", 2),
        ("vocab_size", 8),
        ("tokenizer", "another"),
        ("tokenizer", ...),
        ("coverage", "much"),
        ("token_ids", "1, 2"),
        ("surplus", 1),
    ],
)
def test_files_of_another_kind_or_target(tmp_path: Path, field: str, value: Any) -> None:
    file = tmp_path / "ids.json"
    save_draft_vocab(file, [1, 2, 5], COUNTS, "hash")
    edit_json(file, **{field: value})
    with pytest.raises(ValueError, match=f"^{file}: .*{field}"):
        read_draft_vocab(file, 7, "hash")


def test_as_heads_take_them() -> None:
    ids = vocab_tensor(range(0, 7, 3), 7)
    assert (ids.dtype, ids.tolist()) == (torch.int32, [0, 3, 6])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "expected at least one token id, got none"),
        ([1, 1], r"expected strictly increasing ids, got \[1, 1\]"),
        ([3, 2], r"expected strictly increasing ids, got \[3, 2\]"),
        ([-1, 2], r"expected ids in \[0, 7\), got -1"),
        ([2, 7], r"expected ids in \[0, 7\), got 7"),
        ([True], r"expected ids in \[0, 7\), got True"),
        ([1.0], r"expected ids in \[0, 7\), got 1.0"),
    ],
)
def test_ids_that_cannot_be(ids: Sequence[Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^draft_vocab: {message}$"):
        vocab_tensor(ids, 7)
