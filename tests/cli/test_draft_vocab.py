"""`kangaroo draft-vocab`, and the options that use what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kangaroo.models.draft_vocab import read_draft_vocab
from kangaroo.models.fingerprint import tokenizer_sha256
from tests.cli.conftest import Run
from tests.folders import TEXTS, VOCAB_SIZE


def test_from_text_to_drafts(run: Run, folder: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "a.txt", tmp_path / "ids.json"
    data.write_text("".join(TEXTS), encoding="utf-8")
    base = ["draft-vocab", "--model", folder, "--data", data, "--size", 20, "--out", out]
    result = run(*base, "--json")
    report = json.loads(result.stdout)
    assert (report["out"], report["num_tokens"]) == (str(out), 20)
    assert 0.3 < report["coverage"] < 1
    ids = read_draft_vocab(out, VOCAB_SIZE, tokenizer_sha256(folder))
    assert len(ids) == 20
    assert 1 in ids  # ends a sequence
    assert 0 not in ids  # begins every text
    assert f"wrote {out}: 20 tokens, " in run(*base).stdout
    generate = ["generate", "def add", "--model", folder, "--adapter", "paper", "--json"]
    plain = json.loads(run(*generate).stdout)
    cheap = json.loads(run(*generate, "--draft-head", "int8", "--draft-vocab", out).stdout)
    assert cheap["token_ids"] == plain["token_ids"]
    assert plain["draft_head"]["num_tokens"] == VOCAB_SIZE
    assert cheap["draft_head"] == {"dtype": "int8", "num_tokens": 20, "bytes_per_step": 20 * 40}


def test_what_is_refused(run: Run, folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "a.txt"
    data.write_text("a", encoding="utf-8")
    out = tmp_path / "ids.json"
    base = ["draft-vocab", "--model", folder, "--data", data, "--out", out, "--size"]
    for arguments, why in (
        ([*base, 0], "size: expected 1 to 263, got 0"),
        ([*base, 264], "size: expected 1 to 263, got 264"),
        ([*base[:4], tmp_path / "a.md", *base[5:], 9], "expected a .jsonl or a .txt file"),
        (["generate", "x", "--model", folder, "--draft-head", "int8"], "without an adapter"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert why in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("data.jsonl", "exists and is no draft vocabulary; not touched"),
        ("other.json", "exists and is no draft vocabulary; not touched"),
        ("", "exists and is no draft vocabulary; not touched"),
        ("none/ids.json", "no such folder"),
    ],
)
def test_nothing_else_is_overwritten_and_nothing_is_counted_for_it(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    data, other = tmp_path / "data.jsonl", tmp_path / "other.json"
    data.write_text('{"text": "a"}\n', encoding="utf-8")
    other.write_text('{"format": "other"}\n', encoding="utf-8")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr("kangaroo.train.vocabulary.token_counts", None)
    base = ["draft-vocab", "--model", folder, "--data", data, "--size", 9]
    result = run(*base, "--out", tmp_path / name)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert why in result.stderr
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_file_that_is_replaced_is_whole_at_any_time(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "a.txt", tmp_path / "ids.json"
    data.write_text("".join(TEXTS), encoding="utf-8")
    base = ["draft-vocab", "--model", folder, "--data", data, "--out", out, "--size"]
    run(*base, 20)
    before = out.read_bytes()

    def fail(_file: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("kangaroo.models.draft_vocab.flush", fail)
        assert run(*base, 21).exit_code != 0
    assert out.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [data, out]
    assert run(*base, 21).exit_code == 0
    assert out.read_bytes() != before
