"""What is written for people: text as it is, but nothing that a terminal would obey."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text

from kangaroo import terminal
from kangaroo.engine.decode import Round
from kangaroo.zoo import corpus
from tests.cli.conftest import Run
from tests.folders import TEXTS, VOCAB_SIZE

EVERY = "".join(map(chr, range(0x100)))
SEEN = "".join(c for c in EVERY if c in "\n\t" or unicodedata.category(c) != "Cc")
TITLE = "x = '\x1b]0;PWNED\x07\x1b[2Jabc\x9b31m'"
ODD = "p :100: [bold]x[/bold] [/] :smile:"  # in rich's own language emoji, markup and an error
# A terminal without colours, so that every escape sequence is one of the text.
TERMINAL = {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "400"}


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TERMINAL.items():
        monkeypatch.setenv(name, value)


def streamed(capsys: pytest.CaptureFixture[str]) -> str:
    """A model that writes every character, behind a prompt of every character."""
    llm: Any = SimpleNamespace(tokenizer=corpus.train_tokenizer(TEXTS, VOCAB_SIZE))
    ids = llm.tokenizer(EVERY)["input_ids"][1:]
    rounds: Any = [Round(ids, len(ids), len(ids) // 2, (0.0, 0.0, 0.0))]
    terminal.stream(llm, ids, rounds)
    return capsys.readouterr().out


@pytest.mark.usefixtures("on_terminal")
def test_a_terminal_has_nothing_to_obey(capsys: pytest.CaptureFixture[str]) -> None:
    assert streamed(capsys) == 2 * SEEN + "\n"


def test_a_pipe_gets_every_byte(capsys: pytest.CaptureFixture[str]) -> None:
    assert streamed(capsys) == EVERY + "\n"


def test_a_prompt_that_would_be_obeyed(run: Run, folder: Path) -> None:
    command = ["generate", "--model", folder, "--adapter", "paper", "--max-new-tokens", 2, TITLE]
    seen = run(*command, env=TERMINAL)
    assert seen.stdout.startswith("x = ']0;PWNED[2Jabc31m'")
    assert "\x1b" not in seen.stdout


@pytest.mark.usefixtures("on_terminal")
def test_tables_and_notes_have_nothing_either(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(TITLE, caption=TITLE)
    table.add_row(Text(TITLE))
    table.add_row(TITLE)
    terminal.show(table, TITLE, Text(TITLE))
    terminal.note(TITLE)
    out, err = capsys.readouterr()
    assert out.count("x = ']0;PWNED[2Jabc31m'") == 6
    assert err == "x = ']0;PWNED[2Jabc31m'\n"
    assert not any(part in out for part in ("\x1b]", "\x1b[2J", "\x07", "\x9b"))


@pytest.mark.parametrize("env", [{}, TERMINAL])
def test_no_language_of_rich(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> None:
    """In lines, tables and errors; a path may well have such a name."""
    for name, value in (env | {"COLUMNS": "400"}).items():
        monkeypatch.setenv(name, value)
    table = Table(ODD, caption=ODD)
    table.add_row(ODD)
    table.add_row(Text(ODD))
    terminal.show(ODD, Text(ODD), table)
    terminal.note(ODD)
    out, err = capsys.readouterr()
    assert out.count(ODD) == 6
    assert err == ODD + "\n"


@pytest.mark.usefixtures("on_terminal")
def test_progress_of_a_strange_name(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress("loss {task.fields[loss]}") as bar:
        bar.add_task(ODD + TITLE, total=1, loss=ODD)
    err = capsys.readouterr().err
    assert ODD + "x = ']0;PWNED[2Jabc31m'" in err
    assert f"loss {ODD}" in err
    assert "\x1b]0;" not in err


def test_errors_name_paths_as_they_are(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl:100:[bold]"
    file.write_text("odd")
    result = run("bench", "--prompts", file, env={"COLUMNS": "400"})
    assert f"error: {file}:1: not valid JSON" in result.stderr
