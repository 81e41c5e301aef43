"""`kangaroo export`: the file is written, and what cannot be exported is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.cli.conftest import Run


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export(run: Run, folder: Path, tmp_path: Path, dtype: str) -> None:
    out = tmp_path / "file.safetensors"
    base = ["export", "--model", folder, "--adapter", "paper", "--out", out]
    result = run(*base, "--dtype", dtype, "--json")
    report = {"out": str(out), "adapter": "paper", "num_bytes": out.stat().st_size}
    assert (result.exit_code, json.loads(result.stdout)) == (0, report)
    with safe_open(out, framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["dtype"], metadata["adapter_kind"]) == (dtype, "paper")
    assert metadata["eos_token_ids"] == "1"
    result = run(*base)
    assert (result.exit_code, result.stdout) == (0, f"wrote {out}\n")


def test_without_an_adapter(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "file.safetensors"
    assert run("export", "--model", folder, "--out", out).exit_code == 0
    with safe_open(out, framework="pt") as file:
        assert file.metadata()["adapter_kind"] == "none"


def test_what_is_refused(run: Run, folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_text("mine")
    base = ["export", "--model", folder, "--out"]
    for arguments, why in (
        ([*base, mine], "not touched"),
        ([*base, folder / "model.safetensors"], "not touched"),
        ([*base, tmp_path], "not touched"),
        ([*base, tmp_path / "absent" / "x"], "no such folder"),
        ([*base, tmp_path / "x", "--dtype", "float16"], "expected one of float32, bfloat16"),
        ([*base, tmp_path / "x", "--adapter", "odd"], "no such folder: odd"),
        (base[:-1], "--out"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert why in result.stderr
    assert mine.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["mine.safetensors"]
