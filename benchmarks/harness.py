"""Times the implementations of one op, cold, beside a peer, and appends one JSON line per figure.

Run `python -m benchmarks.kernels.bench_linear` from the root of the repository. No figure without
a green gate: the op's tests run first, or `--gate` names the JUnit report of one run for many ops,
made by `pytest tests/kernels --junitxml=gate.xml` after the last change of a source file.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.models import models_for
from benchmarks.provenance import ROOT, machine, run_gate
from kangaroo_kernels import Backend, Target
from kangaroo_kernels.kernel_set import explain, load_impl

CPU_ROTATION_BYTES = 256 * 2**20  # several times any last-level cache of a workstation
MAX_COPIES = 4096
Call = Callable[..., object]
Copies = Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class Case:
    """One figure to take.

    Attributes:
        name: model and place in it, e.g. "tiny-py gate_up".
        shape: sizes by name.
        num_bytes: what one call has to move at least: weights and caches read, results written.
        data: what a call reads; copies of its tensors are rotated, so that they are cold.
        run: calls the op, its first argument, on one copy of the data.
        peer: a name, and what others would do with the same copy.
    """

    name: str
    shape: Mapping[str, int]
    num_bytes: int
    data: tuple[Any, ...]
    run: Callable[..., object]
    peer: tuple[str, Callable[..., object]] | None = None

    def copy(self) -> tuple[Any, ...]:
        """The data, its tensors cloned."""
        return tuple(x.clone() if isinstance(x, torch.Tensor) else x for x in self.data)

    def num_copies(self, rotation_bytes: int) -> int:
        """So many that together they exceed `rotation_bytes`."""
        size = sum(x.numel() * x.itemsize for x in self.data if isinstance(x, torch.Tensor))
        return min(max(2, math.ceil(rotation_bytes / size)), MAX_COPIES)


@dataclass(frozen=True)
class Setting:
    """What all figures of a run share."""

    device: torch.device
    dtype: torch.dtype
    repeats: int

    @property
    def rotation_bytes(self) -> int:
        if self.device.type != "cuda":
            return CPU_ROTATION_BYTES
        return 4 * int(torch.cuda.get_device_properties(self.device).L2_cache_size)

    @property
    def timer(self) -> Callable[[Sequence[Call], Copies, int], list[list[float]]]:
        return time_cuda if self.device.type == "cuda" else time_cpu


def quantiles(samples_us: Sequence[float]) -> tuple[float, float, float]:
    """p20, p50, p80."""
    ordered = sorted(samples_us)
    p20, p50, p80 = (ordered[round(q * (len(ordered) - 1))] for q in (0.2, 0.5, 0.8))
    return p20, p50, p80


def time_cpu(calls: Sequence[Call], copies: Copies, repeats: int) -> list[list[float]]:
    """Microseconds of each call, in turns, each on the copy that was touched longest ago."""
    samples: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call(*copies[0])  # first calls load code and grow arenas
    turn = 0
    for _ in range(repeats):
        for call, taken in zip(calls, samples, strict=True):
            copy = copies[turn % len(copies)]
            turn += 1
            start = time.perf_counter_ns()
            call(*copy)
            taken.append((time.perf_counter_ns() - start) / 1e3)
    return samples


def time_cuda(calls: Sequence[Call], copies: Copies, repeats: int) -> list[list[float]]:
    """Microseconds of each call: one graph over all copies per call, replayed in turns."""
    graphs = []
    for call in calls:
        call(*copies[0])  # compiles before capture
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for copy in copies:
                call(*copy)
        graphs.append(graph)
    samples: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for graph, taken in zip(graphs, samples, strict=True):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            taken.append(start.elapsed_time(end) * 1e3 / len(copies))
    return samples


def copy_bandwidth(setting: Setting) -> float:
    """GB/s, read and written, of a plain copy beyond all caches."""
    pair = tuple(torch.ones(setting.rotation_bytes // 4) for _ in range(2))
    [samples] = setting.timer([torch.Tensor.copy_], [pair], max(5, setting.repeats // 10))
    return 2 * setting.rotation_bytes / quantiles(samples)[1] / 1e3


def parse(op: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"time {op}")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--backend", choices=[b.value for b in Backend], help="default: all that run"
    )
    parser.add_argument("--dtype", default=None, help="default: float32 on a CPU, else bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--gate", type=Path, help="JUnit report of a run of the tests")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / f"{op}.jsonl")
    return parser.parse_args()


def backends(op: str, target: Target, asked: str | None) -> dict[str, Callable[..., Any]]:
    """The implementations to time; one that was asked for must run."""
    wanted = [Backend(asked)] if asked else [b for b, why in explain(op, target).items() if not why]
    return {backend.value: load_impl(op, backend, target) for backend in wanted}


def main(op: str, cases: Callable[[Setting], Iterable[Case]]) -> None:
    """Gate, measure the copy bandwidth, then every case with every backend."""
    arguments = parse(op)
    gate = run_gate(op, arguments.gate)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    dtype = arguments.dtype or ("float32" if arguments.device == "cpu" else "bfloat16")
    setting = Setting(torch.device(arguments.device), getattr(torch, dtype), arguments.repeats)
    head_dim = models_for(setting.device)[-1].heads.head_dim
    target = Target(setting.device, setting.dtype, head_dim)
    implementations = backends(op, target, arguments.backend)
    with setting.device, torch.inference_mode():
        shared = {"op": op, "dtype": dtype, "gate": gate, **machine(setting.device)}
        shared["copy_gb_per_s"] = round(copy_bandwidth(setting), 2)
        print(op, *(f"{key}={shared[key]}" for key in ("device", "copy_gb_per_s", "load_1min")))
        for case in cases(setting):
            record(case, implementations, setting, shared, out=arguments.out)


def record(
    case: Case,
    implementations: Mapping[str, Callable[..., Any]],
    setting: Setting,
    shared: Mapping[str, Any],
    *,
    out: Path,
) -> None:
    """Measure one case: all backends and the peer in turns on the same copies; print and append."""
    calls: list[Call] = [partial(case.run, op) for op in implementations.values()]
    peer, peer_call = case.peer or (None, None)
    copies = [case.copy() for _ in range(case.num_copies(setting.rotation_bytes))]
    samples = setting.timer(calls + [peer_call] * bool(peer), copies, setting.repeats)
    peer_us = quantiles(samples[-1])[1] if peer else None
    for backend, taken in zip(implementations, samples, strict=False):
        p20, p50, p80 = quantiles(taken)
        gb_per_s = case.num_bytes / p50 / 1e3
        percent = 100 * gb_per_s / shared["copy_gb_per_s"]
        figure = {
            "backend": backend,
            "case": case.name,
            "shape": dict(case.shape),
            "p20_us": round(p20, 3),
            "p50_us": round(p50, 3),
            "p80_us": round(p80, 3),
            "repeats": len(taken),
            "rotated_bytes": len(copies) * case.num_bytes,
            "num_bytes": case.num_bytes,
            "gb_per_s": round(gb_per_s, 3),
            "percent_of_copy": round(percent, 2),
            "peer": peer,
            "peer_p50_us": round(peer_us, 3) if peer_us else None,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as file:
            file.write(json.dumps({**shared, **figure}) + "\n")
        beside = f"{peer} {peer_us:9.1f} us, x{peer_us / p50:.2f}" if peer_us else ""
        shape = " ".join(f"{key}={size}" for key, size in case.shape.items())
        print(f"{case.name:24} {shape:32} {backend:10} {p50:9.1f} us {percent:6.1f} %  {beside}")
