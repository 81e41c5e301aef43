"""One small target, made once."""

from pathlib import Path

import pytest

from tests.train.tiny import make_target


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a target of four layers and its tokenizer; not to be written to."""
    return make_target(tmp_path_factory.mktemp("target"))
