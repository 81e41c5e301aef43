"""What a draft vocabulary is chosen by: tokens that the target is to write."""

from pathlib import Path

import pytest
import torch

from kangaroo.train.documents import DataError
from kangaroo.train.vocabulary import token_counts
from tests.train.tiny import make_tokenizer, write_jsonl

TOKENIZER = make_tokenizer()


def test_texts_and_answers_are_counted(tmp_path: Path) -> None:
    lines = [
        {"input_ids": [1, 9, 8, 8, 7], "loss_mask": [0, 0, 1, 1, 1]},
        {"input_ids": [1, 9, 8, 5], "loss_mask": [0, 0, 0, 1]},
    ]
    counts = token_counts(write_jsonl(tmp_path / "a.jsonl", lines), TOKENIZER, len(TOKENIZER))
    expected = torch.zeros(len(TOKENIZER), dtype=torch.int64)
    expected[torch.tensor([5, 7, 8])] = torch.tensor([1, 1, 2])
    assert counts.equal(expected)
    text = tmp_path / "a.txt"
    text.write_text("hello hello", encoding="utf-8")
    ids = TOKENIZER("hello hello")["input_ids"]
    counts = token_counts(text, TOKENIZER, len(TOKENIZER))
    assert counts[ids[0]] == 0  # stands in front of every text, and is never written
    assert counts.sum() == len(ids)  # and one more token ends it
    assert counts[TOKENIZER.eos_token_id] == 1


def test_a_token_that_the_target_has_not_is_refused_by_line(tmp_path: Path) -> None:
    lines = [{"text": "a"}, {"input_ids": [1, 262], "loss_mask": None}]
    file = write_jsonl(tmp_path / "a.jsonl", lines)
    with pytest.raises(DataError, match=r"a\.jsonl:2: expected tokens in \[0, 262\), got 262"):
        token_counts(file, TOKENIZER, 262)
