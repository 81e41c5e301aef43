"""`kangaroo bench`: one object or one row per prompt, and the total."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kangaroo.evals import paired
from tests.cli.conftest import Run

PROMPTS = ["def é", "for x in", "[1, 2"]


@pytest.fixture
def base(folder: Path, tmp_path: Path) -> list[object]:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    command = ["bench", "--prompts", file, "--model", folder, "--adapter", "deep_prefix"]
    return [*command, "--max-new-tokens", 6, "--repeats", 2]


def test_json(run: Run, base: list[object]) -> None:
    """The fields of `generate --compare --json`, per prompt; totals are theirs together."""
    result = run(*base, "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    one = run("generate", PROMPTS[1], *base[3:], "--compare", "--json")
    expected = json.loads(one.stdout)
    assert len(report["prompts"]) == len(PROMPTS)
    assert report["prompts"][1].keys() | {"seed"} == expected.keys()
    assert report["seed"] is expected["seed"] is None
    for name in ("token_ids", "text", "ar_token_ids", "identical", "compression_ratio"):
        assert report["prompts"][1][name] == expected[name]
    total = report["total"]
    assert total["num_tokens"] == sum(len(p["token_ids"]) for p in report["prompts"])
    assert total["identical"] is True
    assert total["speedup"] == pytest.approx(total["tokens_per_s"] / total["ar_tokens_per_s"])


def test_trees(run: Run, base: list[object]) -> None:
    trees = ["--draft", "tree", "--top-k", 3, "--max-nodes", 12, "--no-adaptive"]
    result = run(*base, "--json", *trees)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["total"]["identical"]) == (0, True)
    assert report["total"]["speculation"]["num_drafted"] > 0


def test_sampling(run: Run, base: list[object]) -> None:
    """One seed for all prompts and both sides; so cold that it is greedy decoding."""
    cold = ["--temperature", 1e-6, "--seed", 9, "--draft", "tree", "--stop", "no such text"]
    report = json.loads(run(*base, "--json", *cold).stdout)
    greedy = json.loads(run(*base, "--json").stdout)
    assert (report["seed"], report["total"]["identical"]) == (9, True)
    for ours, theirs in zip(report["prompts"], greedy["prompts"], strict=True):
        assert ours["token_ids"] == theirs["token_ids"]


def test_table(run: Run, base: list[object]) -> None:
    result = run(*base)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for name in (*PROMPTS, "total"):
        assert sum(line.strip().startswith(name) for line in lines) == 1
    assert result.stdout.count("identical") == len(PROMPTS) + 1


def test_ids_that_differ_fail(
    run: Run, base: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = paired.compare

    def differ(*arguments: Any, **options: Any) -> paired.Comparison:
        comparison = compare(*arguments, **options)
        comparison.speculative[-1].token_ids.append(5)
        return comparison

    monkeypatch.setattr(paired, "compare", differ)
    result = run(*base, "--json")
    assert (result.exit_code, json.loads(result.stdout)["total"]["identical"]) == (1, False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("odd", "prompts.jsonl:2: not valid JSON"),
        (
            json.dumps({"prompt": "a \ud800 b"}),
            "prompts.jsonl:2: prompt: expected whole characters",
        ),
        (json.dumps({"prompt": "0" * 999}), "prompts.jsonl:2: max_new_tokens: expected at most "),
    ],
)
def test_prompts_that_are_wrong(
    run: Run, base: list[object], monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    """Before any of them is decoded."""
    file = Path(str(base[2]))
    file.write_text(f'{{"prompt": "a"}}\n{line}\n')
    monkeypatch.delattr(paired, "compare")
    result = run(*base)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert message in result.stderr
