"""Times calls, cold: on copies of their data that were touched longest ago, all callers in turns.

The commands are `benchmarks/kernels/run.py` and its cases `bench_<op>.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from benchmarks.models import Sweep

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
        peers: by name, what others would do with the same copy.
    """

    name: str
    shape: Mapping[str, int]
    num_bytes: int
    data: tuple[Any, ...]
    run: Callable[..., object]
    peers: Mapping[str, Callable[..., object]] = field(default_factory=dict)

    def copy(self) -> tuple[Any, ...]:
        """The data, its tensors cloned."""
        return tuple(x.clone() if isinstance(x, torch.Tensor) else x for x in self.data)

    def num_copies(self, rotation_bytes: int) -> int:
        """So many that together they exceed `rotation_bytes`."""
        size = sum(x.numel() * x.itemsize for x in self.data if isinstance(x, torch.Tensor))
        return min(max(2, math.ceil(rotation_bytes / size)), MAX_COPIES)


@dataclass(frozen=True)
class Setting:
    """What all figures of a run share.

    Attributes:
        compiled: torch.compile(max-autotune) is one of the peers; each shape takes it long.
    """

    device: torch.device
    dtype: torch.dtype
    repeats: int
    sweep: Sweep
    compiled: bool = False

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


def able(
    peers: Mapping[str, Call], copy: tuple[Any, ...]
) -> tuple[dict[str, Call], dict[str, str]]:
    """The peers that can do it; and why the others cannot, in their own words."""
    calls, failed = {}, {}
    for name, call in peers.items():
        try:
            call(*copy)
        except Exception as error:  # others' code may fail as it likes
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            calls[name] = call
    return calls, failed


def measure(
    case: Case, implementations: Mapping[str, Call], setting: Setting, copy_gb_per_s: float
) -> list[dict[str, Any]]:
    """All implementations and peers in turns on the same copies: one figure per implementation."""
    copies = [case.copy() for _ in range(case.num_copies(setting.rotation_bytes))]
    peers, failed = able(case.peers, copies[0])
    calls: list[Call] = [partial(case.run, op) for op in implementations.values()]
    samples = setting.timer([*calls, *peers.values()], copies, setting.repeats)
    theirs = samples[len(calls) :]
    peers_us = {
        name: round(quantiles(taken)[1], 3) for name, taken in zip(peers, theirs, strict=True)
    }
    figures = []
    for backend, taken in zip(implementations, samples, strict=False):
        p20, p50, p80 = quantiles(taken)
        gb_per_s = case.num_bytes / p50 / 1e3
        figures.append(
            {
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
                "percent_of_copy": round(100 * gb_per_s / copy_gb_per_s, 2),
                "peers_p50_us": peers_us,
                "failed_peers": failed,
            }
        )
    return figures
