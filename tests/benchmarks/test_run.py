"""`benchmarks/kernels/run.py`: every op has cases, and a figure carries what it was taken with."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from benchmarks.harness import Setting, able, measure
from benchmarks.models import SWEEPS
from kangaroo_kernels import Target
from kangaroo_kernels.kernel_set import IMPLS, Backend, load_impl

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TINY = replace(SWEEPS["cpu"], num_nodes=(1,), contexts=(64,))
SETTING = Setting(CPU, torch.float32, 1, TINY)
SWEPT = "benchmarks/kernels/run.py"


@pytest.mark.parametrize("op", list(IMPLS))
def test_cases_run(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the definition of the op; no peer fails."""
    monkeypatch.setattr("benchmarks.harness.CPU_ROTATION_BYTES", 1)
    reference = load_impl(op, Backend.REFERENCE, Target(CPU, torch.float32, 64))
    for case in import_module(f"benchmarks.kernels.bench_{op}").cases(SETTING):
        [figure] = measure(case, {"reference": reference}, SETTING, copy_gb_per_s=10.0)
        assert figure["failed_peers"] == {}
        assert figure["peers_p50_us"].keys() == case.peers.keys()
        assert figure["num_bytes"] > 0 < figure["percent_of_copy"]


def test_a_peer_that_fails_is_named_with_its_words() -> None:
    def broken() -> None:
        raise RuntimeError("no kernel for this shape\nand more")

    calls, failed = able({"broken": broken, "sound": lambda: None}, ())
    assert list(calls) == ["sound"]
    assert failed == {"broken": "RuntimeError: no kernel for this shape"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SWEPT, "--device", "cpu", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_figures_are_appended_behind_a_green_gate(tmp_path: Path) -> None:
    gate = tmp_path / "gate.xml"
    passed = '<testcase classname="tests.kernels.test_rms_norm" name="test_rows"/>'
    gate.write_text(f"<testsuites><testsuite>{passed}</testsuite></testsuites>")
    done = run("rms_norm", "--repeats", "2", "--gate", str(gate), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "rms_norm.jsonl").read_text().splitlines()]
    assert {line["op"] for line in lines} == {"rms_norm"}
    named = {"commit", "device", "torch", "triton", "copy_gb_per_s", "absent_peers", "gate"}
    assert all(named <= line.keys() for line in lines)
    failed = passed.replace("/>", "><failure/></testcase>")
    gate.write_text(f"<testsuites><testsuite>{failed}</testsuite></testsuites>")
    refused = run("rms_norm", "--gate", str(gate), "--out", str(tmp_path))
    assert refused.returncode == 1
    assert "1 of 1 tests of rms_norm fail" in refused.stderr


def test_an_unknown_op_is_refused() -> None:
    refused = run("rms_morn")
    assert refused.returncode == 2
    assert "expected ops among" in refused.stderr
