"""The model in the package does what the README's first command says."""

from __future__ import annotations

import json

import pytest

from kangaroo.config import ADAPTER_KINDS
from tests.cli.conftest import Run


@pytest.mark.parametrize("kind", [None, *ADAPTER_KINDS])
def test_the_packaged_model(run: Run, kind: str | None) -> None:
    """Without any option, and with either adapter: identical ids, in fewer passes."""
    adapter = [] if kind is None else ["--adapter", kind]
    result = run(
        "generate", "--compare", "--json", "--max-new-tokens", 32, "--repeats", 1, *adapter
    )
    report = json.loads(result.stdout)
    assert (result.exit_code, report["identical"]) == (0, True)
    assert len(report["token_ids"]) == 32
    assert report["compression_ratio"] > 1
