"""`benchmarks/round_graph.py`: what it takes, and that it says so where it cannot be had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import round_graph
from benchmarks.round_graph import KERNELS, LONG, MODES, SHORT, STEPS, figure, per_step, shown

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is there")
def test_without_a_device_it_says_so_and_ends_with_2() -> None:
    command = [sys.executable, "benchmarks/round_graph.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected a CUDA device, got none" in done.stderr


def test_an_extension_without_rounds_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "kangaroo_kernels._C", SimpleNamespace())
    monkeypatch.setattr("kangaroo_kernels._C", SimpleNamespace(), raising=False)
    with pytest.raises(SystemExit) as ended:
        round_graph.extension()
    assert ended.value.code == 2
    assert "built with CUDA" in capsys.readouterr().err


def test_what_is_fixed_drops_out_of_the_cost_of_a_step() -> None:
    costs = (1.5, 2.5)
    short = [100.0 + cost * SHORT for cost in costs]
    long = [100.0 + cost * LONG for cost in costs]
    assert per_step(short, long) == pytest.approx(costs)


def test_every_choice_is_measured() -> None:
    assert {step.mode for step in STEPS} == set(MODES)
    assert len({(step.mode, step.name) for step in STEPS}) == len(STEPS)
    assert {(s.kernels, s.stopped) for s in STEPS if s.mode == "conditional"} == {
        (kernels, stopped) for kernels in (0, KERNELS) for stopped in (False, True)
    }


def test_a_figure_is_one_line() -> None:
    taken = figure("conditional IF of nothing, taken", "conditional", [3.0, 1.0, 2.0])
    assert (taken["p20_us"], taken["p50_us"], taken["p80_us"]) == (1.0, 2.0, 3.0)
    assert shown(taken).split()[-3:] == ["1.00", "2.00", "3.00"]
