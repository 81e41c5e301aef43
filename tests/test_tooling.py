"""What the formatters, the linter and the type checker say of the whole project."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_tree import CPP_FILES, ROOT

SCRIPTS = Path(sys.executable).parent
COMMANDS: dict[str, list[str | Path]] = {
    "ruff check": ["ruff", "check"],
    "ruff format": ["ruff", "format", "--check"],
    "mypy": ["mypy"],
    "clang-format": ["clang-format", "--dry-run", "-Werror", *CPP_FILES],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_to_say(name: str) -> None:
    tool, *arguments = COMMANDS[name]
    found = shutil.which(tool, path=SCRIPTS)
    assert found, f"{tool}: expected beside Python, as the extra `dev` installs it"
    done = subprocess.run([found, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
