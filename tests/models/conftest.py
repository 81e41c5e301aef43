"""Small checkpoints, made once and copied for each test that damages one; the shape of an error."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factories import make_checkpoint

Copy = Callable[[str], Path]


def one_line(*parts: str) -> str:
    """A pattern for `match`: one line of text with all of `parts`, literally, anywhere in it."""
    return "^" + "".join(f"(?=.*{re.escape(part)})" for part in parts) + r"[^\n]+\Z"


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by name; not to be written to."""
    root = tmp_path_factory.mktemp("pristine")
    return {
        "whole": make_checkpoint(root / "whole", "qwen3-bias-tied", tie_word_embeddings=False),
        "tied": make_checkpoint(root / "tied", "qwen2"),
        "sharded": make_checkpoint(
            root / "sharded",
            "qwen3-bias-tied",
            tie_word_embeddings=False,
            max_shard_size="100KB",
        ),
    }


@pytest.fixture
def copy(pristine: dict[str, Path], tmp_path: Path) -> Copy:
    """Copies one of the pristine folders to a place of the test's own."""

    def copied(name: str) -> Path:
        return Path(shutil.copytree(pristine[name], tmp_path / name, dirs_exist_ok=True))

    return copied
