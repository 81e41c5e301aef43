"""`benchmarks/kernels/run.py`: every op has cases, and a figure carries what it was taken with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks.harness import Case, Setting, able, measure
from benchmarks.models import SWEEPS
from kangaroo_kernels import Target, UnsupportedError
from kangaroo_kernels.kernel_set import IMPLS, Backend, load_impl

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TINY = replace(SWEEPS["cpu"], num_nodes=(1,), contexts=(64,))
SETTING = Setting(CPU, torch.float32, 1, TINY)
SWEPT = "benchmarks/kernels/run.py"


def effects(call: Callable[..., object], case: Case) -> list[Tensor]:
    """What a call makes of a copy: its results, and its arguments afterwards."""
    data = case.copy()
    return [leaf for leaf in tree_leaves((call(*data), data)) if isinstance(leaf, Tensor)]


OTHERWISE = ("verify_tree", "rope_append_kv", "draw_tokens")


@pytest.mark.parametrize("op", [op for op in IMPLS if op not in OTHERWISE])
def test_peers_do_the_same_work(op: str) -> None:
    """All but the argmax beside verify_tree, which is a part of it, queries that lie otherwise
    (tests/benchmarks/test_peers.py), and draws by other numbers.
    """
    reference = load_impl(op, Backend.REFERENCE, Target(CPU, torch.float32, 64))
    for case in import_module(f"benchmarks.kernels.bench_{op}").cases(SETTING):
        ours = effects(partial(case.run, reference), case)
        for peer in case.peers.values():
            for mine, theirs in zip(ours, effects(peer, case), strict=True):
                torch.testing.assert_close(theirs, mine)


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

    samples, failed = able({"broken": broken, "sound": lambda: None}, [()], SETTING)
    assert list(samples) == ["sound"]
    assert samples["sound"]() > 0
    assert failed == {"broken": "RuntimeError: no kernel for this shape"}


def test_an_implementation_may_refuse_a_case() -> None:
    def refuses(op: str, *_: Tensor) -> None:
        if op == "narrow":
            raise UnsupportedError("too wide")

    case = Case("wide", {"N": 1}, 4, (torch.ones(1),), refuses)
    [figure] = measure(case, {"narrow": "narrow", "wide": "wide"}, SETTING, copy_gb_per_s=10.0)
    assert (figure["backend"], figure["refused"]) == ("wide", {"narrow": "too wide"})


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SWEPT, "--device", "cpu", "--backend", "reference", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_figures_are_appended_behind_a_green_gate(tmp_path: Path) -> None:
    gate = tmp_path / "gate.xml"
    passed = '<testcase classname="tests.kernels.test_rms_norm" name="test_[reference-float32]"/>'
    gate.write_text(f"<testsuites><testsuite>{passed}</testsuite></testsuites>")
    done = run("rms_norm", "--repeats", "2", "--gate", str(gate), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "rms_norm.jsonl").read_text().splitlines()]
    assert {line["op"] for line in lines} == {"rms_norm"}
    named = {"commit", "device", "torch", "triton", "copy_gb_per_s", "absent_peers", "gate"}
    assert all(named <= line.keys() for line in lines)
    failed = passed.replace("/>", "><failure/></testcase>")
    skipped = passed.replace("/>", "><skipped/></testcase>")
    refusals = {
        failed: "1 of 1 tests of rms_norm fail",
        skipped: "no test of rms_norm by reference",
    }
    for cases, says in refusals.items():
        gate.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
        refused = run("rms_norm", "--gate", str(gate), "--out", str(tmp_path))
        assert refused.returncode == 1
        assert says in refused.stderr


def test_an_unknown_op_is_refused() -> None:
    refused = run("rms_morn")
    assert refused.returncode == 2
    assert "expected ops among" in refused.stderr
