"""Commands that load a model: a terminal sees how far it is, and Ctrl-C ends it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kangaroo.engine import loading
from kangaroo.models.weights import OnProgress
from tests.cli.conftest import Run


def test_a_terminal_sees_how_far_loading_is(run: Run, folder: Path) -> None:
    command = ["generate", "x", "--model", folder, "--adapter", "paper", "--max-new-tokens", 1]
    command.append("--json")
    piped, seen = run(*command), run(*command, env={"FORCE_COLOR": "1", "COLUMNS": "99"})
    assert "loading" not in piped.stderr
    assert "loading" in seen.stderr
    assert re.search(r"(\d+\.\d)/\1 kB", seen.stderr), "all of it"
    for result in (piped, seen):
        assert json.loads(result.stdout)["token_ids"]


def test_an_interrupted_load(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = loading.load_target

    def interrupted(*args: object) -> object:
        on_progress: OnProgress = args[-1]  # type: ignore[assignment]

        def stop(done: int, total: int) -> None:
            on_progress(done, total)
            raise KeyboardInterrupt

        return load(*args[:-1], stop)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "load_target", interrupted)
    result = run("generate", "x", "--model", folder, env={"FORCE_COLOR": "1"})
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Traceback" not in result.stderr
