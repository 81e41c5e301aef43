"""Commands whose figures stand in docs: each runs, keeps its promises, and appends a record."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest

ONE = ["--prompts", "1"]
COMMANDS: dict[str, list[str]] = {
    "adversarial": [*ONE, "--new-tokens", "4", "--repeats", "1", "--clock", "cpu"],
    "batch_decode": [*ONE, "--new-tokens", "4", "--repeats", "1"],
    "draft_extras": [*ONE, "--new-tokens", "4", "--texts", "1", "--sizes", "64"],
    "drafters": [*ONE, "--new-tokens", "4", "--tuning-prompts", "1", "--trials", "1"]
    + ["--confidences", "0.4"],
    "online": ["--prompts", "2", "--new-tokens", "4", "--every", "1"],
    "sampling_cr": [*ONE, "--new-tokens", "4", "--temperatures", "1.0"],
    "tree_cr": [*ONE, "--new-tokens", "4", "--confidences", "0.4"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_short_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so few tokens only what is said of ids can be judged."""
    out = tmp_path / "record.jsonl"
    options = [*COMMANDS[name], "--threads", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [name, *options])
    import_module(f"benchmarks.{name}").main()
    (record,) = map(json.loads, out.read_text().splitlines())
    assert record["benchmark"] == name
    ids = [bar["verdict"] for bar in record["bars"] if "ids" in bar["name"]]
    assert set(ids) == {"PASS"}
