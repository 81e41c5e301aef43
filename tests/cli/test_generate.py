"""`kangaroo generate`: where the prompt comes from, what is written where, and the exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from kangaroo import KangarooForCausalLM
from kangaroo.engine import loading
from kangaroo.evals import paired
from tests.cli.conftest import Run
from tests.factories import edit_json
from tests.train.tiny import CHAT_TEMPLATE

NUM_TOKENS = 20
GREEN, DIM = "\x1b[32m", "\x1b[2m"


@pytest.fixture
def base(folder: Path) -> list[object]:
    """A command that drafts a lot."""
    command = ["generate", "--model", folder, "--adapter", "paper", "--confidence", 0]
    return [*command, "--max-new-tokens", NUM_TOKENS, "--repeats", 1]


@pytest.fixture(scope="module")
def expected(folder: Path) -> tuple[list[int], str]:
    """Ids and text behind "def é", autoregressively."""
    llm = KangarooForCausalLM.from_pretrained(folder)
    ids = llm.tokenizer("def é")["input_ids"]
    rounds = llm.rounds(ids, max_new_tokens=NUM_TOKENS, max_depth=0)
    new = [token for each in rounds for token in each.tokens]
    assert len(new) == NUM_TOKENS
    return new, llm.tokenizer.decode(new, skip_special_tokens=True)


# Where the prompt comes from.


def test_prompts_from_everywhere(
    run: Run, base: list[object], expected: tuple[list[int], str], tmp_path: Path
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes("def é".encode())
    results = [
        run(*base, "def é"),
        run(*base, "-", input="def é".encode()),
        run(*base, "--prompt-file", file),
    ]
    for result in results:
        assert (result.exit_code, result.stdout) == (0, expected[1] + "\n")


def test_tiny_py_needs_no_prompt_and_no_adapter(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has both; a prompt is built in, and which adapter is its default."""
    monkeypatch.setattr(loading, "target_path", lambda target: folder)
    result = run("generate", "--max-new-tokens", 3, "--json")
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["token_ids"]) == 3
    assert "no prompt given" in result.stderr


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_message_of_a_chat(
    run: Run, folder: Path, tmp_path: Path, base: list[object], system: str | None
) -> None:
    """The ids that a model's own template asks for, transformers says."""
    shutil.copytree(folder, tmp_path / "chat")
    base[base.index(folder)] = tmp_path / "chat"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(tmp_path / "chat")
    messages = [{"role": "user", "content": "def é"}]
    told = [] if system is None else ["--system", system]
    if system is not None:
        messages = [{"role": "system", "content": system}, *messages]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    llm = KangarooForCausalLM.from_pretrained(folder)
    rounds = llm.rounds(asked["input_ids"], max_new_tokens=NUM_TOKENS, max_depth=0)
    expected = [token for each in rounds for token in each.tokens]
    result = run(*base, "--chat", *told, "--json", "def é")
    assert json.loads(result.stdout)["token_ids"] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "--chat"], "chat: expected a model with a chat template, got one without"),
        (["x", "--system", "y"], "system: has no effect without --chat"),
        ([], "prompt: expected a text, --prompt-file FILE, or - for standard input"),
        (["x", "--prompt-file", "y"], "prompt: expected an argument or --prompt-file, got both"),
        (["-"], "prompt: not UTF-8: invalid start byte at byte 1"),
        (["--prompt-file", "/absent"], "/absent"),
        (["x", "--max-new-tokens", "0"], "max_new_tokens: expected a whole number of at least 1"),
        (["x", "--max-depth", "64"], "max_depth: expected 0 to 63, got 64"),
        (["x", "--draft", "odd"], "draft: expected one of ('off', 'chain', 'tree'), got 'odd'"),
        (["x", "--draft", "tree", "--top-k", "17"], "draft_top_k: expected 1 to 16, got 17"),
        (["x", "--draft", "tree", "--max-nodes", "65"], "max_nodes: expected 1 to 64, got 65"),
        (["x", "--top-k", "4"], "draft_top_k: has no effect on draft='chain'"),
        (["x", "--exit-layer", "3"], "exit_layer: the adapter was trained for 1, got 3"),
        (["x", "--adapter", "none"], "adapter: no such folder: none; this target has deep_prefix"),
        (["x", "--model", "/absent"], "/absent: no such folder"),
        (["x", "--device", "odd"], "device: expected one such as"),
        (["x", "--dtype", "odd"], "dtype: expected 'auto' or one of"),
        (["x", "--backend", "odd"], "backend: expected 'auto' or one of"),
        (["x", "--threads", "0"], "--threads"),
        (["x", "--odd"], "No such option: --odd"),
    ],
)
def test_errors_are_one_line(
    run: Run, base: list[object], arguments: list[str], message: str
) -> None:
    """On standard error, exit code 2, and with --debug there is a traceback instead."""
    result = run(*base, *arguments, input=b"a\xff")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_debug_shows_where(run: Run, base: list[object]) -> None:
    result = run(*base, "x", "--max-depth", 64, "--debug")
    assert isinstance(result.exception, ValueError)
    assert run(*base, "x", "--max-depth", 64).exit_code == 2


def test_what_nobody_expected_is_one_line_too(
    run: Run, base: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise KeyError("odd")

    monkeypatch.setattr(KangarooForCausalLM, "rounds", breaks)
    result = run(*base, "x")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: KeyError: 'odd' (--debug shows where)\n",
    )


def test_interrupted(run: Run, base: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(KangarooForCausalLM, "rounds", interrupt)
    result = run(*base, "x")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Traceback" not in result.stderr


# What is written.


def test_json(run: Run, base: list[object], expected: tuple[list[int], str]) -> None:
    result = run(*base, "def é", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (report["token_ids"], report["text"]) == expected
    assert report["compression_ratio"] >= 1
    assert report["tokens_per_s"] > 0
    assert report["speculation"]["num_drafted"] > 0


def test_trees(run: Run, base: list[object], expected: tuple[list[int], str]) -> None:
    """The same ids, from more drafted tokens in a round than fit a path."""
    options = ["--draft", "tree", "--top-k", 4, "--max-nodes", 24, "--compare", "--json"]
    options.append("--no-adaptive")
    result = run(*base, "def é", *options)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["token_ids"]) == (0, expected[0])
    assert report["speculation"]["num_drafted"] > 6 * report["speculation"]["num_rounds"]
    off = json.loads(
        run(*base[:5], "def é", "--max-new-tokens", NUM_TOKENS, "--draft", "off", "--json").stdout
    )
    assert (off["token_ids"], off["speculation"]["num_drafted"]) == (expected[0], 0)


def test_json_of_a_comparison(
    run: Run, base: list[object], expected: tuple[list[int], str]
) -> None:
    result = run(*base, "def é", "--json", "--compare")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["identical"]) == (0, True)
    assert report["token_ids"] == report["ar_token_ids"] == expected[0]
    assert report["text"] == expected[1]
    for name in ("compression_ratio", "tokens_per_s", "ar_tokens_per_s", "speedup"):
        assert report[name] > 0
    assert result.stdout.count("\n") == 1


def test_a_comparison_shows_text_then_table(
    run: Run, base: list[object], expected: tuple[list[int], str]
) -> None:
    result = run(*base, "def é", "--compare")
    assert result.exit_code == 0
    assert result.stdout.startswith(expected[1] + "\n")
    table = result.stdout.removeprefix(expected[1])
    assert "autoregressive" in table
    assert "ids identical" in table


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_ids_that_differ_fail(
    run: Run, base: list[object], as_json: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = paired.compare

    def differ(*arguments: Any, **options: Any) -> paired.Comparison:
        comparison = compare(*arguments, **options)
        comparison.autoregressive[0].token_ids[-1] += 1
        return comparison

    monkeypatch.setattr(paired, "compare", differ)
    result = run(*base, "x", "--compare", *as_json)
    assert result.exit_code == 1
    assert "DIFFERENT" in result.stdout or '"identical": false' in result.stdout


def test_a_terminal_gets_prompt_and_colours(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without drafts nothing is green; NO_COLOR turns all styles off."""
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm"}
    command = ["generate", "--model", folder, "--max-new-tokens", 5, "--max-depth", 0, "def é"]
    plain = run(*command, env=terminal)
    assert plain.stdout.startswith(f"{DIM}def é\x1b[0m")
    assert GREEN not in plain.stdout
    monkeypatch.setattr("kangaroo.engine.decode.min", lambda *_: 1, raising=False)
    accepted = run(*command, env=terminal)  # now every token counts as an accepted one
    assert GREEN in accepted.stdout
    bare = run(*command, env=terminal | {"NO_COLOR": "1"})
    assert bare.stdout.startswith("def é")
    assert "\x1b" not in bare.stdout
    assert run(*command).stdout == bare.stdout.removeprefix("def é")


def test_a_folder_that_samples_is_decoded_greedily(
    run: Run, base: list[object], folder: Path, expected: tuple[list[int], str]
) -> None:
    file = folder / "generation_config.json"
    before = file.read_bytes()
    edit_json(file, do_sample=True, temperature=0.7, repetition_penalty=1.1)
    result, drawn = run(*base, "def é"), run(*base, "def é", "--temperature", 1)
    file.write_bytes(before)
    assert result.stdout == expected[1] + "\n"
    assert "do_sample, repetition_penalty of generation_config.json not used" in result.stderr
    assert "sampling: repetition_penalty of generation_config.json not used" in drawn.stderr


# In a process of its own, where the locale knows ASCII alone.


Apart = Callable[..., subprocess.CompletedProcess[bytes]]
ASCII_ONLY = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_json_and_nothing_else_on_standard_output(
    run_apart: Apart, base: list[object], expected: tuple[list[int], str]
) -> None:
    """The prompt, which is not ASCII, arrives whole."""
    command = [*base, "def é", "--compare", "--json", "--threads", 1]
    done = run_apart("-m", "kangaroo.cli", *command, **ASCII_ONLY)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["token_ids"], report["text"]) == expected


def test_no_text_stops_the_program(run_apart: Apart) -> None:
    code = """if True:
        from kangaroo import cli, terminal
        text = "\\xe9 \\U0001f998"
        cli.app = lambda _: terminal.show(text) or terminal.note(text)
        cli.main()
    """
    done = run_apart("-c", code, **ASCII_ONLY)
    assert done.returncode == 0, done.stderr
    for written in (done.stdout, done.stderr):
        assert written in ("é 🦘\n".encode(), "é 🦘\n".encode("ascii", "backslashreplace"))


def test_errors_in_a_process_of_their_own(run_apart: Apart) -> None:
    done = run_apart("-m", "kangaroo.cli", "generate", "--odd")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: No such option: --odd")
    assert done.stderr.count(b"\n") == 1
