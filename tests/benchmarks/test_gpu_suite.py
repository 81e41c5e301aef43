"""`benchmarks/gpu_suite.py` by made-up stages: limits, failures, resumption, what is written."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_suite, report
from benchmarks.gpu_suite import FAILED, KEPT, PASSED, TIMED_OUT, Stage

WHOLE_LIMIT_S = 60.0
COUNTS = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.open('a').write('x')"


def stage(name: str, code: str, *arguments: str, limit_s: float = WHOLE_LIMIT_S) -> Stage:
    return Stage(name, (sys.executable, "-c", code, *arguments), limit_s)


def counting(name: str, tmp_path: Path) -> tuple[Stage, Path]:
    """A stage that leaves a mark each time it is run."""
    marks = tmp_path / f"{name}.marks"
    return stage(name, COUNTS, str(marks)), marks


def run(tmp_path: Path, todo: list[Stage], fresh: bool = False) -> tuple[int, list[str]]:
    """The exit code, and the verdicts of this run."""
    out = tmp_path / "out"
    code = gpu_suite.suite(todo, out, tmp_path / "results", fresh=fresh)
    lines = [json.loads(line) for line in (out / "suite.jsonl").read_text().splitlines()]
    return code, [line["verdict"] for line in lines[-len(todo) :]]


def test_a_failed_stage_stops_no_other(tmp_path: Path) -> None:
    last, marks = counting("last", tmp_path)
    broken = stage("broken", "print('what went wrong'); raise SystemExit(3)")
    assert run(tmp_path, [broken, last]) == (1, [FAILED, PASSED])
    assert marks.read_text() == "x"
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "| broken | failed |" in text
    assert "| last | passed |" in text
    assert "what went wrong" in text
    assert report.NOT_MEASURED in text


def test_what_takes_too_long_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that outlives its parent keeps the GPU's memory. The limit is up as soon as there is
    a child; both have a pipe open, whose end is read when both have ended.
    """
    path = tmp_path / "pipe"
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def said() -> bytes:
        assert select.select([pipe], [], [], WHOLE_LIMIT_S)[0], "nothing was said"
        return os.read(pipe, 1)

    class Impatient(subprocess.Popen[bytes]):
        """Waits for a word in place of the limit."""

        def wait(self, timeout: float | None = None) -> int:
            """What has said it is there is too late."""
            if timeout == WHOLE_LIMIT_S and said() == b"x":
                raise subprocess.TimeoutExpired(self.args, timeout)
            return super().wait(timeout)

    code = (
        "import os, signal, subprocess, sys\n"
        "pipe = os.open(sys.argv[1], os.O_WRONLY)\n"
        "child = [sys.executable, '-c', 'import signal; signal.pause()']\n"
        "subprocess.Popen(child, pass_fds=[pipe])\n"
        "os.write(pipe, b'x')\n"
        "signal.pause()\n"
    )
    monkeypatch.setattr(gpu_suite.subprocess, "Popen", Impatient)
    assert run(tmp_path, [stage("slow", code, str(path))]) == (1, [TIMED_OUT])
    assert said() == b""
    os.close(pipe)


def test_a_limit_is_kept(tmp_path: Path) -> None:
    last, marks = counting("last", tmp_path)
    endless = stage("endless", "import signal; signal.pause()", limit_s=0.1)
    assert run(tmp_path, [endless, last]) == (1, [TIMED_OUT, PASSED])
    assert marks.exists()


def test_a_run_is_taken_up_where_it_was_left(tmp_path: Path) -> None:
    first, first_marks = counting("first", tmp_path)
    last, last_marks = counting("last", tmp_path)
    flag = tmp_path / "flag"
    wants_flag = stage("flagged", f"import os; raise SystemExit(not os.path.exists({str(flag)!r}))")
    todo = [first, wants_flag, last]
    assert run(tmp_path, todo) == (1, [PASSED, FAILED, PASSED])
    flag.touch()
    assert run(tmp_path, todo) == (0, [KEPT, PASSED, KEPT])
    assert (first_marks.read_text(), last_marks.read_text()) == ("x", "x")
    assert run(tmp_path, todo, fresh=True) == (0, [PASSED, PASSED, PASSED])
    assert first_marks.read_text() == "xx"


def test_what_was_done_for_other_code_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only, marks = counting("only", tmp_path)
    assert run(tmp_path, [only]) == (0, [PASSED])
    monkeypatch.setattr(gpu_suite, "git", lambda *arguments: "another commit")
    assert run(tmp_path, [only]) == (0, [PASSED])
    other = stage("only", COUNTS, str(marks), "another command")
    assert run(tmp_path, [other]) == (0, [PASSED])
    assert marks.read_text() == "xxx"


def test_a_stage_that_fails_again_is_no_longer_done(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    todo = [stage("flagged", f"import os; raise SystemExit(not os.path.exists({str(flag)!r}))")]
    assert run(tmp_path, todo) == (0, [PASSED])
    flag.unlink()
    assert run(tmp_path, todo, fresh=True) == (1, [FAILED])
    assert run(tmp_path, todo) == (1, [FAILED])


def test_stages_find_the_sources_and_the_tools_of_the_environment(tmp_path: Path) -> None:
    code = "import os; print(os.environ['PYTHONPATH'], os.environ['PATH'])"
    run(tmp_path, [stage("paths", code)])
    first, path = (tmp_path / "out" / "paths.log").read_text().split()
    root = gpu_suite.ROOT
    assert first.split(os.pathsep)[:2] == [str(root), str(root / "python")]
    assert path.split(os.pathsep)[0] == str(Path(sys.executable).parent)


@pytest.mark.parametrize("quick", [True, False])
def test_the_stages(tmp_path: Path, quick: bool) -> None:
    """Each once, and every script is there and takes its arguments."""
    todo = gpu_suite.stages(tmp_path / "out", tmp_path / "results", quick)
    names = [each.name for each in todo]
    assert len(set(names)) == len(names)
    assert names[:5] == ["build", "tests", "device_test", "round_graph", "kernels"]
    if quick:
        worst_s = sum(each.limit_s + gpu_suite.GRACE_S for each in todo)
        assert worst_s <= gpu_suite.QUICK_BUDGET_S
    for each in todo:
        script = Path(each.command[1])
        if script.suffix == ".py":
            assert (gpu_suite.ROOT / script).exists()


@pytest.mark.parametrize("quick", [True, False])
def test_arguments_of_the_stages_are_understood(
    tmp_path: Path, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import decode, decode_bits, round_graph
    from benchmarks.kernels import run as kernels

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    parsers = {"decode": decode, "decode_bits": decode_bits}
    seen = set()
    for each in gpu_suite.stages(tmp_path / "out", tmp_path / "results", quick):
        name, arguments = Path(each.command[1]).stem, list(each.command[2:])
        if name in parsers:
            assert parsers[name].parse(arguments).device == "cuda"
            seen.add(name)
        elif name in ("run", "round_graph"):
            monkeypatch.setattr(sys, "argv", list(each.command[1:]))
            given = (kernels if name == "run" else round_graph).parse()
            assert given.gate == tmp_path / "out" / "gate.xml"
            assert given.out == tmp_path / "results"
            seen.add(name)
    assert seen == {"decode", "decode_bits", "run", "round_graph"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is there")
def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu_suite.main(["--quick"])
    assert "expected a CUDA device, got none" in capsys.readouterr().err
