"""Everything that needs a GPU, stage by stage: `benchmarks/gpu_suite.sh [--quick] [--fresh]`.

Every stage has a time limit and a log; one that fails or takes too long does not stop the others.
Stages that are done for this commit are not run again (`--fresh` runs all). Figures are appended to
benchmarks/results; the folder of the run has logs, suite.jsonl and summary.md. The exit code is 1
if a stage failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks import report
from benchmarks.provenance import ROOT, append, git, machine
from kangaroo.config import ADAPTER_KINDS

PASSED, FAILED, TIMED_OUT, KEPT = "passed", "failed", "timed out", "kept"
GRACE_S = 2.0  # between asking a stage to end and ending it
QUICK_BUDGET_S = 540
LOG_LINES = 15  # of a stage that failed, in the summary
WORKERS = 8  # processes that share the GPU while tests compile kernels
# Of every op one dtype, of the engine one family, of the round as a graph what it decides.
QUICK_TESTS = "triton-bfloat16 or (test_gpu and llama-gqa-llama3) or test_every_mode_is_greedy"


@dataclass(frozen=True)
class Stage:
    """A command with a limit; its exit code says whether it passed."""

    name: str
    command: tuple[str, ...]
    limit_s: float


@dataclass(frozen=True)
class Outcome:
    """What became of a stage.

    Attributes:
        code: the exit code; None: it was ended, or had been done before.
    """

    stage: str
    verdict: str
    seconds: float
    code: int | None = None

    @property
    def is_bad(self) -> bool:
        return self.verdict in (FAILED, TIMED_OUT)


def stages(out: Path, results: Path, quick: bool) -> list[Stage]:
    """All of them, in order: later ones refuse to time what earlier ones have not proved."""
    python, gate = sys.executable, ("--gate", str(out / "gate.xml"))

    def limit(full: float, short: float) -> float:
        return short if quick else full

    tests = (python, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={out / 'gate.xml'}")
    tests += ("-n", str(WORKERS)) if find_spec("xdist") else ()
    tests += ("-k", QUICK_TESTS) if quick else ()
    install = (python, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "-e", ".")
    device_test = (
        "cmake --preset release && cmake --build --preset release --target round_device_test && "
        "ctest --preset release -R round_device_test --no-tests=error"
    )
    fast = ("--quick",) if quick else ()
    decode_out = ("--device", "cuda", "--out", str(results / "decode.jsonl"), *gate)
    kernels = script("kernels/run", "--device", "cuda", "--out", str(results), *gate, *fast)
    bits = script("decode_bits", "--device", "cuda", "--out", str(results / "decode_bits.jsonl"))
    found = [
        Stage("build", install, limit(600, 80)),
        Stage("tests", tests, limit(3600, 145)),
        Stage("device_test", ("bash", "-c", device_test), limit(600, 60)),
        Stage("round_graph", script("round_graph", "--out", str(results), *gate), limit(300, 25)),
        Stage("kernels", kernels + (("--repeats", "20") if quick else ()), limit(7200, 60)),
    ]
    found += decode_stages(decode_out, quick)
    found.append(Stage("bits", bits + fast, limit(7200, 50)))
    if not quick:
        wide = ("--shape", "llama-3.2-1b", "--tokens", "20000")
        found.append(Stage("bits-llama-3.2-1b", bits + wide, 1800))
        cut = ("--out", str(results / "tilings.jsonl"), *gate)
        found.append(Stage("tilings", script("tilings", *cut), 900))
    return found


def decode_stages(out: tuple[str, ...], quick: bool) -> list[Stage]:
    """Random weights at real shapes, and tiny-py at them, which is right now and then."""
    if quick:
        few = ("--context", "128", "2048", "--batch", "1", "--repeats", "10", "--prompts", "1")
        few += ("--new-tokens", "64", "--peers", "library", "transformers")
        return [Stage("decode", script("decode", "--shape", report.SHAPES[0], *few, *out), 100)]
    small = ("--target", "tiny-py", "--only", "race", "--prompts", "8", "--new-tokens", "256")
    return [
        *(
            Stage(f"decode-{shape}", script("decode", "--shape", shape, *out), 1800)
            for shape in report.SHAPES
        ),
        *(
            Stage(
                f"decode-tiny-py-{shape}-{kind}",
                script("decode", "--shape", shape, "--adapter", kind, *small, *out),
                900,
            )
            for shape in report.SHAPES
            for kind in ADAPTER_KINDS
        ),
    ]


def script(name: str, *arguments: str) -> tuple[str, ...]:
    """A command that runs one of the benchmarks."""
    return sys.executable, f"benchmarks/{name}.py", *arguments


def run_stage(stage: Stage, out: Path, environment: dict[str, str]) -> Outcome:
    """Run it to its end or its limit, with everything that it started; its log is in `out`."""
    started = perf_counter()
    with (out / f"{stage.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(stage.limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process)
    verdict = TIMED_OUT if code is None else FAILED if code else PASSED
    return Outcome(stage.name, verdict, round(perf_counter() - started, 1), code)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends what is left of a session of processes."""
    for number, patience_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience_s)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def run_all(
    todo: Sequence[Stage], out: Path, fresh: bool, note: Callable[[Outcome], None]
) -> list[Outcome]:
    """Every stage that is not done yet, each told to `note`; a stamp is left by those that pass."""
    paths = [str(ROOT), str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "KANGAROO_BUILD_EXT": "1"}
    scripts = str(Path(sys.executable).parent)
    environment["PATH"] = f"{scripts}{os.pathsep}{environment.get('PATH', '')}"
    outcomes = []
    for stage in todo:
        stamp, wanted = out / f"{stage.name}.done", stamp_of(stage)
        if not fresh and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
            outcome = Outcome(stage.name, KEPT, 0.0)
        else:
            stamp.unlink(missing_ok=True)
            outcome = run_stage(stage, out, environment)
            if outcome.verdict == PASSED:
                stamp.write_text(wanted, encoding="utf-8")
        outcomes.append(outcome)
        note(outcome)
    return outcomes


def stamp_of(stage: Stage) -> str:
    """What was done: this command, of this commit."""
    return json.dumps({"command": stage.command, "commit": git("rev-parse", "HEAD")})


def summary(todo: Sequence[Stage], outcomes: Sequence[Outcome], out: Path, results: Path) -> str:
    """The run in Markdown: stages, the last lines of logs of those that failed, figures."""
    lines = ["# GPU suite", "", "| stage | verdict | seconds | limit |", "|---|---|---|---|"]
    for stage, outcome in zip(todo, outcomes, strict=True):
        lines.append(
            f"| {stage.name} | {outcome.verdict} | {outcome.seconds:.1f} | {stage.limit_s:g} |"
        )
    for outcome in outcomes:
        if outcome.is_bad:
            log = (out / f"{outcome.stage}.log").read_text(encoding="utf-8", errors="replace")
            lines += ["", f"`{outcome.stage}.log` ends:", "", "```"]
            lines += [*log.splitlines()[-LOG_LINES:], "```"]
    records = report.read(results / "decode.jsonl")
    return "\n".join([*lines, "", *report.table(records), ""])


def suite(todo: Sequence[Stage], out: Path, results: Path, *, fresh: bool) -> int:
    """Run, print, summarise; the exit code."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shared: dict[str, Any] = machine(device) | {"benchmark": "gpu_suite"}

    def note(outcome: Outcome) -> None:
        print(f"{outcome.stage:20} {outcome.verdict:10} {outcome.seconds:8.1f} s", flush=True)
        append(shared | asdict(outcome), out / "suite.jsonl")

    out.mkdir(parents=True, exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    outcomes = run_all(todo, out, fresh, note)
    (out / "summary.md").write_text(summary(todo, outcomes, out, results), encoding="utf-8")
    print(out / "summary.md")
    return int(any(outcome.is_bad for outcome in outcomes))


def main(arguments: list[str] | None = None) -> int:
    """What the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help=f"under {QUICK_BUDGET_S} s")
    parser.add_argument("--fresh", action="store_true", help="run stages that are done, too")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu_suite")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("expected a CUDA device, got none")
    out = given.out.resolve() / ("quick" if given.quick else "full")
    results = given.results.resolve()
    return suite(stages(out, results, given.quick), out, results, fresh=given.fresh)


if __name__ == "__main__":
    sys.exit(main())
