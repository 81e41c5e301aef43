"""`kangaroo generate` with --temperature and --stop: Python's options under other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kangaroo import KangarooForCausalLM
from kangaroo.evals import paired
from tests.cli.conftest import Run

NUM_TOKENS = 20
PROMPT = "def é"


@pytest.fixture
def base(folder: Path) -> list[object]:
    """A command that drafts a lot."""
    command = ["generate", PROMPT, "--model", folder, "--adapter", "paper", "--confidence", 0]
    return [*command, "--max-new-tokens", NUM_TOKENS, "--repeats", 1]


@pytest.fixture(scope="module")
def llm(folder: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(folder, "paper")


def new_ids(llm: KangarooForCausalLM, **options: Any) -> list[int]:
    prompt = llm.tokenizer(PROMPT)["input_ids"]
    rounds = llm.rounds(prompt, **{"max_new_tokens": NUM_TOKENS, "confidence": 0.0} | options)
    return [token for each in rounds for token in each.tokens]


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {}),
        (["--sample-top-k", 3], {"top_k": 3}),
        (["--top-p", 0.3], {"top_p": 0.3}),
        (["--min-p", 0.5], {"min_p": 0.5}),
        (["--draft", "tree"], {"draft": "tree"}),
    ],
)
def test_options_arrive(
    run: Run,
    base: list[object],
    llm: KangarooForCausalLM,
    flags: list[object],
    options: dict[str, Any],
) -> None:
    """The seed is told, and settles the text."""
    hot = ["--temperature", 1.5, "--seed", 11, *flags]
    result = run(*base, *hot, "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["seed"]) == (0, 11)
    given = {"do_sample": True, "seed": 11, "temperature": 1.5} | options
    assert report["token_ids"] == new_ids(llm, **given)
    streamed = run(*base, *hot)
    assert streamed.stdout == report["text"] + "\n"
    assert streamed.stderr.endswith(", seed 11\n")


def test_a_seed_that_was_told_can_be_given(run: Run, base: list[object]) -> None:
    hot = [*base, "--temperature", 5, "--json"]
    first, second = (json.loads(run(*hot).stdout) for _ in range(2))
    assert first["token_ids"] != second["token_ids"]
    again = json.loads(run(*hot, "--seed", first["seed"]).stdout)
    assert again["token_ids"] == first["token_ids"]


def test_greedy_decoding_has_no_seed(run: Run, base: list[object]) -> None:
    for flags in ([], ["--temperature", 0]):
        assert json.loads(run(*base, *flags, "--json").stdout)["seed"] is None
        assert "seed" not in run(*base, *flags).stderr


def test_a_comparison(run: Run, base: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed on both sides; so cold that it is greedy decoding."""
    seen, run_once = [], paired.run_once

    def remember(*arguments: Any, **options: Any) -> Any:
        seen.append((options["seed"], options.get("draft")))
        return run_once(*arguments, **options)

    monkeypatch.setattr(paired, "run_once", remember)
    result = run(*base, "--temperature", 1e-6, "--compare", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["identical"]) == (0, True)
    assert {seed for seed, _ in seen} == {report["seed"]}
    assert {draft for _, draft in seen} == {None, "off"}


@pytest.mark.parametrize("draft", ["chain", "tree"])
def test_stop_strings(run: Run, base: list[object], llm: KangarooForCausalLM, draft: str) -> None:
    """The first of several ends it, and is written."""
    text = llm.tokenizer.decode(new_ids(llm))
    stop = next(character for character in text[3:] if character.isascii() and character.isalpha())
    expected = new_ids(llm, stop_strings=[stop])
    assert 0 < len(expected) < NUM_TOKENS
    flags = ["--stop", "no such text", "--stop", stop, "--draft", draft]
    report = json.loads(run(*base, *flags, "--json").stdout)
    assert (report["token_ids"], report["text"][-1:]) == (expected, stop)
    assert run(*base, *flags).stdout == report["text"] + "\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", -1], "temperature: expected at least 0, got -1.0"),
        (["--seed", 4], "seed=4: has no effect on greedy decoding; give --temperature above 0"),
        (["--temperature", 0, "--top-p", 1], "top_p=1.0: has no effect on greedy decoding"),
        (["--min-p", 0.1], "min_p=0.1: has no effect on greedy decoding"),
        (["--sample-top-k", 50], "sample_top_k=50: has no effect on greedy decoding"),
        (["--temperature", 1, "--top-k", 4], "draft_top_k: has no effect on draft='chain'"),
        (["--temperature", 1, "--top-p", 2], "Invalid value for '--top-p'"),
        (["--temperature", 1, "--seed", -1], "seed: expected a whole number in [0, 2^64), got -1"),
        (["--stop", ""], "stop_strings: expected texts that are not empty"),
    ],
)
def test_refusals(run: Run, base: list[object], flags: list[object], message: str) -> None:
    result = run(*base, *flags)
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
