"""`kangaroo data`: prepare, regenerate, and what training makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kangaroo.train.prepare import HELD_OUT, MANIFEST, REJECTS, TRAIN
from kangaroo.train.regenerate import ANSWERS
from tests.cli.conftest import Run
from tests.train.tiny import write_jsonl

TEXTS = [{"text": f"def add_{n}(a, b):\n    return a + {n} * b\n"} for n in range(20)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "data.jsonl", [*TEXTS, "{", {"text": ""}])


def test_from_files_to_a_folder_to_train_on(
    run: Run, folder: Path, data: Path, tmp_path: Path
) -> None:
    text, out = tmp_path / "a.txt", tmp_path / "out"
    text.write_bytes(b"a\n\xff")
    base = ["data", "prepare", "--model", folder, "--data", data, "--data", text, "--out", out]
    result = run(*base, "--held-out-fraction", 0.2, "--seq-len", 16)
    assert result.exit_code == 0
    assert result.stderr == f"rejected lines: 3; {out / REJECTS} says why\n"
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{out / TRAIN}: ")
    assert second.startswith(f"{out / HELD_OUT}: ")
    result = run(*base[:-1], tmp_path / "json", "--json")
    report = json.loads(result.stdout)
    assert report == {"out": str(tmp_path / "json")} | json.loads(
        (tmp_path / "json" / MANIFEST).read_text()
    )
    assert report["num_rejected"] == 3
    assert sum(part["num_documents"] for part in report["files"].values()) == 20


def test_the_target_writes_its_own_data(run: Run, folder: Path, data: Path, tmp_path: Path) -> None:
    base = ["data", "regenerate", "--model", folder, "--data", data, "--prompt-len", 16]
    base += ["--max-new-tokens", 9, "--max-len", 64, "--out"]
    result = run(*base, tmp_path / "out", "--batch-size", 3)
    assert (result.exit_code, result.stderr.count("\n")) == (0, 1)
    assert result.stderr == f"rejected lines: 2; {tmp_path / 'out' / REJECTS} says why\n"
    assert result.stdout.startswith(f"{tmp_path / 'out' / ANSWERS}: 20 documents, ")
    drafted = run(*base, tmp_path / "drafted", "--adapter", "paper", "--json")
    report = json.loads(drafted.stdout)
    assert report["num_rejected"] == 2
    for name in (ANSWERS, REJECTS, MANIFEST):
        one, other = (tmp_path / which / name for which in ("out", "drafted"))
        assert one.read_bytes() == other.read_bytes()
    prepared = run(
        *("data", "prepare", "--model", folder, "--data", tmp_path / "out" / ANSWERS),
        *("--out", tmp_path / "prepared", "--seq-len", 32, "--json"),
    )
    assert prepared.stderr == ""
    assert json.loads(prepared.stdout)["num_rejected"] == 0


def test_what_is_refused(run: Run, folder: Path, data: Path, tmp_path: Path) -> None:
    useless = write_jsonl(tmp_path / "useless.jsonl", ["{"])
    prepare = ["data", "prepare", "--model", folder, "--out", tmp_path / "out", "--data"]
    regenerate = ["data", "regenerate", "--model", folder, "--out", tmp_path / "out", "--data"]
    for arguments, why in (
        ([*prepare, tmp_path / "a.md"], "expected a .jsonl or a .txt file"),
        ([*prepare, useless], "expected at least one document that can be used, got none"),
        ([*prepare, tmp_path / "none.jsonl"], "No such file"),
        ([*prepare, data, "--held-out-fraction", 1], "held_out_fraction: expected between 0 and 1"),
        ([*prepare, data, "--seq-len", 1], "seq_len: expected at least 2, got 1"),
        ([*regenerate, useless], "expected a line to answer, got none"),
        ([*regenerate, data, "--max-len", 9999], "max_len: expected at most 256"),
        ([*regenerate, data, "--temperature", -1], "temperature: expected at least 0, got -1"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert why in result.stderr
        assert not (tmp_path / "out").exists()
