"""`benchmarks/decode_bits.py` passes what is exact, and fails what is not, or sees too little."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import decode_bits
from tests.benchmarks.tiny import SHAPE

ALL_RULES = decode_bits.RULES
RULES = ALL_RULES[5::13]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_bits, "SHAPES", {"tiny": replace(SHAPE, num_slots=140)})
    monkeypatch.setattr(decode_bits, "RULES", RULES)
    monkeypatch.setattr(decode_bits, "CONTROL_TOKENS", 8)
    monkeypatch.setattr("benchmarks.logit_bits.TOKENS_PER_PROMPT", 20)


def run(out: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    given = ["--device", "cpu", "--threads", "1", "--tokens", "80", "--out", str(out)]
    code = decode_bits.main([*given, *arguments])
    return code, json.loads(out.read_text().splitlines()[-1])


def verdicts(record: dict[str, Any]) -> list[str]:
    return [bar["verdict"] for bar in record["bars"]]


def test_the_rules_are_those_of_the_promise() -> None:
    asked = {(rule["draft"], rule["max_depth"], rule["confidence"]) for rule in decode_bits.RULES}
    assert (
        {draft for draft, _, _ in asked} == {rule["draft"] for rule in RULES} == {"chain", "tree"}
    )


def test_random_weights_pass_and_the_control_is_seen(tmp_path: Path) -> None:
    code, record = run(tmp_path / "bits.jsonl", "--shape", "tiny")
    assert (code, set(verdicts(record))) == (0, {"PASS"})
    assert record["tally"]["num_tokens"] >= 80
    assert record["weights"] == "random"


def test_real_text_by_real_adapters(tmp_path: Path) -> None:
    code, record = run(tmp_path / "bits.jsonl")
    assert (code, set(verdicts(record))) == (0, {"PASS"})
    assert record["shape"] == "tiny-py"


def test_a_mistake_in_the_engine_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = decode_bits.subjects

    def wrong(given: Any) -> Any:
        """All of them sum as the control does."""
        found = made(given)
        return {
            kind: one.served_by(decode_bits.split_by_rows(one.model.kernels))
            for kind, one in found.items()
        }

    monkeypatch.setattr(decode_bits, "subjects", wrong)
    code, record = run(tmp_path / "bits.jsonl", "--shape", "tiny")
    assert (code, verdicts(record)[-2]) == (1, "FAIL")


def test_a_control_that_nobody_sees_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_bits, "split_by_rows", lambda kernels: kernels)
    code, record = run(tmp_path / "bits.jsonl", "--shape", "tiny")
    assert (code, verdicts(record)) == (1, ["PASS"] * 4 + ["FAIL"])
