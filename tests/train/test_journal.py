"""What a journal was told it knows for ever; what was cut short it forgets."""

from pathlib import Path
from typing import Any

import pytest

from kangaroo.train.journal import Journal

MINE: dict[str, Any] = {"seed": 3}


def known(file: Path) -> dict[int, dict[str, Any]]:
    with Journal(file, MINE) as journal:
        return {item: journal[item] for item in range(9) if item in journal}


def test_a_line_is_whole_or_forgotten(tmp_path: Path) -> None:
    """At every length that a kill may leave; what is added then stands."""
    file = tmp_path / "journal.jsonl"
    with Journal(file, MINE) as journal:
        lengths = [file.stat().st_size]
        for item in (4, 2):
            journal.add(item, {"n": item})
            lengths.append(file.stat().st_size)
        assert len(journal) == 2
    content = file.read_bytes()
    for length in range(len(content) + 1):
        file.write_bytes(content[:length])
        expected = {
            i: {"n": i} for i, end in zip((4, 2), lengths[1:], strict=True) if length >= end
        }
        assert known(file) == expected
        with Journal(file, MINE) as journal:
            journal.add(7, {"n": 7})
        assert known(file) == expected | {7: {"n": 7}}


def test_another_s_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file, MINE) as journal:
        journal.add(0, {})
    for content in (file.read_bytes(), b"something else\n"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="seed: the run was started with .*, got 4"):
            Journal(file, {"seed": 4})
        assert file.read_bytes() == content


@pytest.mark.parametrize("content", [b"a thesis without an end", b"[1, 2]\n", b'{"a": 1}'])
def test_what_is_no_journal_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="journal.jsonl: "):
        Journal(file, MINE)
    assert file.read_bytes() == content
