"""What the control flow of a round costs on a GPU: `python benchmarks/round_graph.py`.

Per draft step: an IF node around nothing and around 16 small kernels, taken and not taken, side by
side or nested, against 16 kernels that return early or do not. Then the time of a round when the
host waits for the device after each launch (0), reads each before the next launch (1), or launches
one ahead (2). Appends JSON lines to benchmarks/results/round_graph.jsonl. Needs a CUDA device, and
tests of the round that pass: they are run first, or `--gate` names the JUnit report of a run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks.harness import quantiles
from benchmarks.provenance import ROOT, machine, run_gate

MODES = ("conditional", "nested", "early_return")
KERNELS = 16  # of a draft step with two early layers, adapter and head
SHORT, LONG = (
    17,
    33,
)  # steps: the first is no condition, and what is fixed drops out of LONG - SHORT
AHEAD = 8
SLEEP_CYCLES = 4_000_000  # longer than AHEAD launches take the host
LATENCY_KERNELS = 64


@dataclass(frozen=True)
class Step:
    """A draft step of which the cost is taken.

    Attributes:
        mode: one of MODES.
        kernels: that it consists of.
        stopped: drafting has stopped before it.
    """

    mode: str
    kernels: int
    stopped: bool

    @property
    def name(self) -> str:
        """As the table says it."""
        if self.mode == "early_return":
            return f"{self.kernels} kernels that {'return early' if self.stopped else 'run'}"
        body = f"{self.kernels} kernels" if self.kernels else "nothing"
        return f"{self.mode} IF of {body}, {'not taken' if self.stopped else 'taken'}"


STEPS = [Step(m, k, s) for m in MODES[:2] for k in (0, KERNELS) for s in (False, True)]
STEPS += [Step("early_return", KERNELS, stopped) for stopped in (False, True)]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--gate", type=Path, help="JUnit report of a run of the tests")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("expected a CUDA device, got none: these figures exist on a GPU alone")
    return arguments


def extension() -> Any:
    """The C++ extension; SystemExit(2) where it has no rounds."""
    try:
        from kangaroo_kernels import _C
    except ImportError:
        _C = None
    if not hasattr(_C, "Round"):
        print("expected kangaroo_kernels._C built with CUDA, got one without", file=sys.stderr)
        raise SystemExit(2)
    return _C


def per_step(short_us: Sequence[float], long_us: Sequence[float]) -> list[float]:
    """Of rounds of SHORT and of LONG steps, taken in turns: what one more step costs."""
    pairs = zip(short_us, long_us, strict=True)
    return [(long - short) / (LONG - SHORT) for short, long in pairs]


def round_us(rig: Any) -> float:
    """Device time of a round: AHEAD of them are enqueued while the device sleeps."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.stream(rig.stream):
        torch.cuda._sleep(SLEEP_CYCLES)
        start.record()
        for _ in range(AHEAD):
            rig.launch()
        end.record()
    end.synchronize()
    for _ in range(AHEAD):
        rig.wait()
    return float(start.elapsed_time(end)) * 1e3 / AHEAD


def measure_step(c: Any, step: Step, repeats: int) -> list[float]:
    """Samples of what the step costs, in microseconds."""
    from benchmarks.round_rig import Buffers, Rig

    buffers = Buffers.on(torch.device("cuda"))
    buffers.warm_up()
    early = step.mode == "early_return"
    body: list[Callable[[], object]] = [lambda: buffers.count(step.kernels, early)]
    head: list[Callable[[], object]] = [lambda: buffers.stop(step.stopped)]
    mode = getattr(c.RoundMode, step.mode.upper())
    rigs = [Rig(c, mode, AHEAD, buffers, head + body * (n - 1)) for n in (SHORT, LONG)]
    for rig in rigs:
        round_us(rig)  # the first launch uploads the graph
    taken: list[list[float]] = [[], []]
    for _ in range(repeats):
        for rig, samples in zip(rigs, taken, strict=True):
            samples.append(round_us(rig))
    return per_step(*taken)


def measure_latency(c: Any, mode: str, ahead: int, repeats: int) -> list[float]:
    """Samples of the wall-clock time from one read round to the next, in microseconds."""
    from benchmarks.round_rig import Buffers, Rig

    buffers = Buffers.on(torch.device("cuda"))
    buffers.warm_up()
    steps = [lambda: buffers.count(LATENCY_KERNELS, False)]
    rig = Rig(c, getattr(c.RoundMode, mode.upper()), max(1, ahead), buffers, steps)
    samples = []
    last = 0
    for number in range(repeats + 10):
        while rig.round.unread < max(1, ahead):
            rig.launch()
        if ahead == 0:
            rig.stream.synchronize()
        rig.wait()
        now = time.perf_counter_ns()
        if number >= 10:
            samples.append((now - last) / 1e3)
        last = now
    return samples


def figures(c: Any, repeats: int) -> Iterator[dict[str, Any]]:
    """Everything, one figure after the other."""
    for step in STEPS:
        taken = measure_step(c, step, repeats)
        yield figure(step.name, step.mode, taken) | {"kernels": step.kernels}
    for mode in MODES:
        for ahead in (0, 1, 2):
            taken = measure_latency(c, mode, ahead, repeats)
            case = f"a round of {LATENCY_KERNELS} kernels, launch-ahead {ahead}"
            yield figure(case, mode, taken) | {"ahead": ahead}


def figure(case: str, mode: str, samples_us: Sequence[float]) -> dict[str, Any]:
    """Quantiles by name."""
    p20, p50, p80 = (round(us, 3) for us in quantiles(samples_us))
    times = {"p20_us": p20, "p50_us": p50, "p80_us": p80, "repeats": len(samples_us)}
    return {"case": case, "mode": mode, **times}


def shown(f: dict[str, Any]) -> str:
    """One line of the table."""
    return f"{f['case']:44} {f['mode']:13} {f['p20_us']:9.2f} {f['p50_us']:9.2f} {f['p80_us']:9.2f}"


def main() -> None:
    arguments = parse()
    c = extension()
    gate = run_gate("round_graph", list(MODES), arguments.gate)
    where = machine(torch.device("cuda")) | {"gate": gate}
    print(f"{'microseconds':58} {'p20':>9} {'p50':>9} {'p80':>9}")
    with (arguments.out / "round_graph.jsonl").open("a") as out:
        for f in figures(c, arguments.repeats):
            print(shown(f))
            out.write(json.dumps({"benchmark": "round_graph", **f, **where}) + "\n")


if __name__ == "__main__":
    main()
