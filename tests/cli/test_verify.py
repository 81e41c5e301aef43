"""`kangaroo verify`: a certificate, a table, and an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kangaroo.engine import loading
from kangaroo.evals import certificate
from kangaroo.evals.subject import Finding
from tests.cli.conftest import Run


@pytest.fixture
def base(folder: Path, tmp_path: Path) -> list[object]:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "def é"}\n')
    command = ["verify", "--model", folder, "--prompts", prompts, "--max-new-tokens", 6]
    return [*command, "--draws", 60, "--seed", 5, "--out", tmp_path / "found.json"]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stops are late."""
    faults: list[dict[str, Any]] = [{"prompt": 0, "ids": [7]}, {"prompt": 1}]
    check = (lambda subject: Finding({"eos_token_id": 2}, faults), "stops stop")
    monkeypatch.setitem(certificate.CHECKS, "stops", check)


def test_json(run: Run, base: list[object], folder: Path, tmp_path: Path) -> None:
    """The same object in the file and on standard output."""
    result = run(*base, "--adapter", "paper", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert report == json.loads((tmp_path / "found.json").read_text())
    assert (report["format"], report["verdict"]) == ("kangaroo-certificate", "pass")
    settings = {name: report["settings"][name] for name in ("max_new_tokens", "seed", "num_draws")}
    assert settings == {"max_new_tokens": 6, "seed": 5, "num_draws": 60}
    assert report["settings"]["prompts"]["count"] == 1
    assert report["target"]["name"] == str(folder)
    assert report["adapter"]["kind"] == "paper"
    assert run(*base, "--adapter", "paper", "--json").exit_code == 0  # its own file is replaced


def test_table(run: Run, base: list[object], tmp_path: Path) -> None:
    result = run(*base, "--adapter", "paper", env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for name in certificate.CHECKS:
        assert f"{name} " in result.stdout
    assert "verdict: PASS; drafting verified" in result.stdout
    assert result.stdout.endswith(f"wrote {tmp_path / 'found.json'}\n")


def test_without_an_adapter(run: Run, base: list[object]) -> None:
    result = run(*base)
    assert result.exit_code == 0
    assert "NOT RUN" in result.stdout
    assert "drafting not verified" in result.stdout
    assert "no adapter given" in result.stderr


@pytest.mark.usefixtures("broken")
def test_a_broken_promise(run: Run, base: list[object], tmp_path: Path) -> None:
    result = run(*base)
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    assert "stops: {'prompt': 0, 'ids': [7]} (and 1 more)" in result.stdout
    assert json.loads((tmp_path / "found.json").read_text())["verdict"] == "fail"
    assert run(*base, "--json").exit_code == 1


def test_tiny_py_has_prompts(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "target_path", lambda target: folder)
    monkeypatch.setattr("kangaroo.evals.certificate.target_path", lambda target: folder)
    out = folder.parent / "tiny.json"
    result = run("verify", "--max-new-tokens", 3, "--draws", 20, "--out", out, "--json")
    assert (result.exit_code, json.loads(result.stdout)["settings"]["prompts"]["count"]) == (0, 4)


def test_refusals(run: Run, base: list[object], folder: Path, tmp_path: Path) -> None:
    """Before anything is computed, and nobody's file is touched."""
    mine = tmp_path / "mine.json"
    mine.write_text('{"format": "mine"}')
    long = tmp_path / "long.jsonl"
    long.write_text(f'{{"prompt": "a"}}\n{{"prompt": "{"0" * 999}"}}\n')
    for arguments, message in (
        (["--out", mine], "exists and is no certificate; not touched"),
        (["--out", folder], "exists and is no certificate; not touched"),
        (["--out", tmp_path / "absent" / "x.json"], "absent: no such folder"),
        (["--draws", 0], "num_draws: expected at least 1, got 0"),
        (["--max-new-tokens", 0], "max_new_tokens: expected at least 1, got 0"),
        (["--seed", -1], "seed: expected a whole number in [0, 2^64), got -1"),
        (["--prompts", tmp_path / "none"], "none: cannot be read"),
        (["--prompts", long], "long.jsonl:2: max_new_tokens: expected at most "),
        (["--adapter", "odd"], "no such folder: odd"),
    ):
        result = run(*base, *arguments)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert message in result.stderr
    assert mine.read_text() == '{"format": "mine"}'
