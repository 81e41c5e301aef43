"""The corpus as files to train on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kangaroo.zoo import corpus, export


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_pieces_are_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of those that are trained on, in order, and nothing that is held out."""
    train, held_out = ["ab" * 5, "é\ncd", ""], ["kept aside"]
    monkeypatch.setattr(corpus, "stdlib_files", list)
    monkeypatch.setattr(corpus, "split", lambda _: (train, held_out))
    export.main(tmp_path / "whole")
    assert texts(tmp_path / "whole/train.jsonl") == train
    assert texts(tmp_path / "whole/held_out.jsonl") == held_out
    assert not (tmp_path / "whole/pieces.jsonl").exists()
    export.main(tmp_path / "cut", piece_len=4)
    assert texts(tmp_path / "cut/pieces.jsonl") == ["abab", "abab", "ab", "é\ncd"]
