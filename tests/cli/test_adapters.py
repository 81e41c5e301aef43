"""`kangaroo init-adapter` and `convert-adapter`: options arrive, results are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kangaroo.models import adapter_io
from tests.cli.conftest import Run


def test_init_adapter(run: Run, folder: Path, tmp_path: Path) -> None:
    """The adapter it writes is one that generate takes."""
    out = tmp_path / "adapter"
    base = ["init-adapter", "--model", folder, "--exit-layer", 1, "--out", out, "--kind", "paper"]
    result = run(*base, "--json", "--seed", 0)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["adapter"]["kind"] == "paper"
    packaged = folder / "adapters" / "paper" / "adapter.safetensors"
    assert (out / "adapter.safetensors").read_bytes() == packaged.read_bytes()
    command = ["generate", "x", "--model", folder, "--adapter", out, "--max-new-tokens", 3]
    assert run(*command).exit_code == 0
    assert run(*base[:-2], "--kind", "odd").exit_code == 2
    assert run(*base[:4], 2, *base[5:]).exit_code == 2


def test_convert_adapter(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arguments arrive; a source that is none is refused."""
    out = tmp_path / "adapter"
    flags = ["--model", folder, "--exit-layer", 1, "--out", out]
    result = run("convert-adapter", tmp_path / "absent", *flags)
    assert result.exit_code == 2
    assert "absent" in result.stderr

    def convert(source: Path, model: Path, exit_layer: int, out: Path) -> None:
        assert source == tmp_path
        adapter_io.init_adapter(model, exit_layer, out, "paper", seed=0)

    monkeypatch.setattr(adapter_io, "convert_adapter", convert)
    result = run("convert-adapter", tmp_path, *flags)
    assert (result.exit_code, result.stdout) == (0, f"wrote {out}\n")
