"""`kangaroo env` tells which kernels serve, why others do not, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kangaroo_kernels import native
from kangaroo_kernels.kernel_set import IMPLS
from tests.cli.conftest import Run

MISSING = "the C++ extension is missing (no such file)"


def test_json(run: Run, folder: Path) -> None:
    report = json.loads(run("env", "--model", folder, "--json").stdout)
    assert report["versions"]["torch"] == torch.__version__
    assert report["machine"]["num_threads"] == torch.get_num_threads()
    assert report["target"]["dtype"] == "float32"
    assert report["kernels"].keys() == IMPLS.keys()
    assert all(kernel["serves"] in ("native", "reference") for kernel in report["kernels"].values())


def test_without_the_extension(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference serves, slowly, and how to change that is said."""
    monkeypatch.setattr(native, "C", None)
    monkeypatch.setattr(native, "IMPORT_ERROR", "no such file")
    report = json.loads(run("env", "--model", folder, "--json").stdout)
    assert report["extension"] is None
    assert report["kernels"]["linear"]["serves"] == "reference"
    assert MISSING in report["kernels"]["linear"]["refused"]["native"]
    assert any(native.HOW_TO_BUILD in note for note in report["notes"])


def test_a_dtype_that_the_extension_does_not_compute(run: Run, folder: Path) -> None:
    report = json.loads(run("env", "--model", folder, "--dtype", "float16", "--json").stdout)
    assert report["kernels"]["linear"]["serves"] == "reference"
    assert report["kernels"]["linear"]["refused"].keys() == {"native", "cuda"}


def test_tables(run: Run, folder: Path) -> None:
    result = run("env", "--model", folder, env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for text in ("torch", "cpu", "head_dim", *IMPLS):
        assert text in result.stdout


def test_the_program_alone_shows_its_commands(run: Run) -> None:
    assert run("--help").exit_code == 0
    making = ("train", "init-adapter", "convert-adapter", "export")
    for command in ("generate", "bench", "verify", "env", *making):
        assert command in run("--help").stdout
        assert "--json" in run(command, "--help").stdout
    assert run("odd").exit_code == 2
    assert run("odd").stderr.count("\n") == 1
