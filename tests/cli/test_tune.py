"""`kangaroo tune`: a table or one object, a choice that can be decoded with, and a rule written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kangaroo import KangarooForCausalLM
from kangaroo.evals import paired, tuning
from kangaroo.models.adapter_format import CONFIG, read_description
from tests.cli.conftest import Run
from tests.folders import make_folder

FREE = tuning.RoundTimes(draft=(0.0,) * 4, verify=(1.0,) * 4, host=(0.0,) * 4)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder whose adapters may be written to."""
    return make_folder(tmp_path / "own", seed=3)


@pytest.fixture
def base(own: Path, tmp_path: Path) -> list[object]:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "def é"}\n{"prompt": "for x in"}\n')
    adapters = ["--adapter", "paper", "--adapter", own / "adapters" / "deep_prefix"]
    command = ["tune", "--prompts", file, "--model", own, *adapters]
    return [*command, "--max-new-tokens", 8, "--max-depth", 3]


def slow(adapter: str, *args: Any) -> tuning.Candidate:
    return tuning.Candidate(adapter, args[-1], 1.0, 0.0, tokens_per_s=1e-9)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts and rows cost nothing, so that what is chosen is no matter of luck."""
    monkeypatch.setattr(tuning, "measured", lambda *_: FREE)
    monkeypatch.setattr(tuning, "decoded", slow)


def test_everything_measured(run: Run, base: list[object], own: Path, tmp_path: Path) -> None:
    """Nothing is made up here; what is chosen depends on the machine."""
    out = tmp_path / "choice.json"
    result = run(*base, "--out", out, env={"COLUMNS": "200"})
    assert (result.exit_code, result.stderr) == (0, "")
    for expected in ("tokens/s", "predicted ", "achieved ", "ids identical", f"wrote {out}"):
        assert expected in result.stdout
    report = json.loads(out.read_text())
    names = {"", "paper", str(own / "adapters" / "deep_prefix")}
    assert {candidate["adapter"] for candidate in report["candidates"]} == names
    options = [candidate["options"] for candidate in report["candidates"]]
    assert {each["draft"] for each in options} == {"off", "chain", "tree"}
    assert {each["lookup"] for each in options if "lookup" in each} == set(tuning.LOOKUPS)
    speeds = [candidate["tokens_per_s"] for candidate in report["candidates"]]
    assert speeds == sorted(speeds, reverse=True)
    assert report["predicted"]["tokens_per_s"] == speeds[0]
    assert report["achieved"]["identical"] is True
    assert report["achieved"]["tokens_per_s"] > 0


@pytest.mark.usefixtures("free")
def test_its_own_file_is_replaced(run: Run, base: list[object], tmp_path: Path) -> None:
    out = tmp_path / "choice.json"
    results = [run(*base, "--out", out, "--json", *more) for more in ([], ["--max-depth", 1])]
    assert [result.exit_code for result in results] == [0, 0]
    assert json.loads(out.read_text()) == json.loads(results[1].stdout)


@pytest.mark.usefixtures("free")
def test_json_is_a_choice(run: Run, base: list[object], own: Path) -> None:
    """Its options are generate's, and give the CR that was predicted and achieved."""
    result = run(*base, "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert report["options"]["draft"] == "chain"
    ratio = report["achieved"]["compression_ratio"]
    assert report["predicted"]["compression_ratio"] == ratio > 1
    llm = KangarooForCausalLM.from_pretrained(own, report["adapter"])
    options: dict[str, Any] = {"max_new_tokens": 8, **report["options"]}
    assert len(llm.rounds([5], **options).tokens) == 0


@pytest.mark.usefixtures("free")
def test_rules_are_written(run: Run, base: list[object], own: Path) -> None:
    """Of every adapter its own best; the rest of it stays, and it can be loaded."""
    homes = [own / "adapters" / kind for kind in ("paper", "deep_prefix")]
    tensors = [(home / "adapter.safetensors").read_bytes() for home in homes]
    before = [json.loads((home / CONFIG).read_text()) for home in homes]
    result = run(*base, "--write", "--json")
    report = json.loads(result.stdout)
    for home, bytes_before, content in zip(homes, tensors, before, strict=True):
        name = "paper" if home.name == "paper" else str(home)
        best = next(c["options"] for c in report["candidates"] if c["adapter"] == name)
        found = read_description(home / CONFIG).adapter
        assert (found.max_depth, found.confidence) == (best["max_depth"], best["confidence"])
        rule = {"max_depth": found.max_depth, "confidence": found.confidence}
        content["adapter"] |= rule
        assert json.loads((home / CONFIG).read_text()) == content
        assert (home / "adapter.safetensors").read_bytes() == bytes_before
        assert sorted(p.name for p in home.iterdir()) == ["adapter.safetensors", CONFIG]
        assert KangarooForCausalLM.from_pretrained(own, home).draft_config().max_depth <= 3


@pytest.mark.usefixtures("free")
def test_ids_that_differ_fail(
    run: Run, base: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = paired.compare

    def differ(*arguments: Any, **options: Any) -> paired.Comparison:
        comparison = compare(*arguments, **options)
        comparison.speculative[-1].token_ids.append(5)
        return comparison

    monkeypatch.setattr(tuning, "compare", differ)
    result = run(*base)
    assert result.exit_code == 1
    assert "ids DIFFERENT" in result.stdout


def test_refusals(run: Run, base: list[object], own: Path, tmp_path: Path) -> None:
    """Before anything is measured, and nobody's file is touched."""
    mine = tmp_path / "mine.json"
    mine.write_text('{"format": "mine"}')
    long = tmp_path / "long.jsonl"
    long.write_text(f'{{"prompt": "a"}}\n{{"prompt": "{"0" * 999}"}}\n')
    for arguments, message in (
        (["--adapter", "odd"], "adapter: no such folder: odd"),
        (["--adapter", own / "adapters" / "paper"], "adapter: expected each once, got one twice"),
        (["--max-new-tokens", 1], "max_new_tokens: expected at least 2, got 1"),
        (["--max-depth", 0], "max_depth: expected 1 to 63, got 0"),
        (["--prompts", tmp_path / "none"], "none: cannot be read"),
        (["--prompts", long], "long.jsonl:2: max_new_tokens: expected at most "),
        (["--out", tmp_path / "absent" / "x.json"], "absent: no such folder"),
        (["--out", own], "exists and is no result of tune; not touched"),
        (["--out", mine], "exists and is no result of tune; not touched"),
    ):
        result = run(*base, *arguments, "--write")
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert message in result.stderr
    assert mine.read_text() == '{"format": "mine"}'
