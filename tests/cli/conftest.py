"""A target with adapters on disk, and the program run in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kangaroo.cli import app
from tests.folders import make_folder

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens that end a sequence are rare here, so that lengths are what is asked for."""
    return make_folder(tmp_path_factory.mktemp("folder"), seed=3)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program in this process: run("generate", "x", input=None, env=None)."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: object, **options: Any) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)

    return invoke


@pytest.fixture
def run_apart() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run Python in a process of its own, without a terminal."""

    def invoke(*arguments: object, **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    return invoke
