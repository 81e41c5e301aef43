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
from kangaroo_kernels import UnsupportedError

CPU_ROTATION_BYTES = 256 * 2**20  # several times any last-level cache of a workstation
MAX_COPIES = 4096
REPLAY_US = 1000.0  # a graph's launch costs about 10
Call = Callable[..., object]
Copies = Sequence[tuple[Any, ...]]
Sample = Callable[[], float]  # microseconds of one call


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
        """So many that their tensors exceed `rotation_bytes`, up to MAX_COPIES. A call that touches
        a small part of its tensors finds that part in a cache: the figure says `cold` or not.
        """
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
    def prepare(self) -> Callable[[Call, Copies], Sample]:
        return prepared_cuda if self.device.type == "cuda" else prepared_cpu


def quantiles(samples_us: Sequence[float]) -> tuple[float, float, float]:
    """p20, p50, p80."""
    ordered = sorted(samples_us)
    p20, p50, p80 = (ordered[round(q * (len(ordered) - 1))] for q in (0.2, 0.5, 0.8))
    return p20, p50, p80


def prepared_cpu(call: Call, copies: Copies) -> Sample:
    """One call a sample, on the copy that was touched longest ago."""
    call(*copies[0])  # first calls load code and grow arenas
    turn = 0

    def sample() -> float:
        nonlocal turn
        copy = copies[turn % len(copies)]
        turn += 1
        start = time.perf_counter_ns()
        call(*copy)
        return (time.perf_counter_ns() - start) / 1e3

    return sample


def prepared_cuda(call: Call, copies: Copies) -> Sample:
    """One replay a sample, of a graph over all copies as often as hides the cost of its launch."""

    def elapsed_us(run: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3

    def captured(times: int) -> torch.cuda.CUDAGraph:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(times):
                for copy in copies:
                    call(*copy)
        return graph

    call(*copies[0])  # compiles before capture
    once = captured(1)
    once.replay()
    times = min(64, math.ceil(REPLAY_US / max(1.0, elapsed_us(once.replay))))
    graph = once if times == 1 else captured(times)
    return lambda: elapsed_us(graph.replay) / (times * len(copies))


def copy_bandwidth(setting: Setting) -> float:
    """GB/s, read and written, of a plain copy beyond all caches."""
    size = setting.rotation_bytes // 4
    pair = tuple(torch.ones(size, device=setting.device) for _ in range(2))
    sample = setting.prepare(torch.Tensor.copy_, [pair])
    samples = [sample() for _ in range(max(5, setting.repeats // 10))]
    return 2 * setting.rotation_bytes / quantiles(samples)[1] / 1e3


def able(
    peers: Mapping[str, Call], copies: Copies, setting: Setting
) -> tuple[dict[str, Sample], dict[str, str]]:
    """The peers that can do it; and why the others cannot, in their own words."""
    samples, failed = {}, {}
    for name, call in peers.items():
        try:
            samples[name] = setting.prepare(call, copies)
        except Exception as error:  # others' code may fail as it likes
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return samples, failed


def measure(
    case: Case, implementations: Mapping[str, Call], setting: Setting, copy_gb_per_s: float
) -> list[dict[str, Any]]:
    """All implementations and peers in turns on the same copies: one figure per implementation
    that takes the case.
    """
    copies = [case.copy() for _ in range(case.num_copies(setting.rotation_bytes))]
    ours, refused = {}, {}
    for name, op in implementations.items():
        try:
            ours[name] = setting.prepare(partial(case.run, op), copies)
        except UnsupportedError as refusal:
            refused[name] = str(refusal)
    if not ours:
        return []
    theirs, failed = able(case.peers, copies, setting)
    taken: dict[str, list[float]] = {name: [] for name in (*ours, *theirs)}
    for _ in range(setting.repeats):
        for name, sample in (*ours.items(), *theirs.items()):
            taken[name].append(sample())
    peers_us = {name: round(quantiles(taken[name])[1], 3) for name in theirs}
    rotated_bytes = len(copies) * case.num_bytes
    figures = []
    for backend in ours:
        p20, p50, p80 = quantiles(taken[backend])
        gb_per_s = case.num_bytes / p50 / 1e3
        figures.append(
            {
                "backend": backend,
                "case": case.name,
                "shape": dict(case.shape),
                "p20_us": round(p20, 3),
                "p50_us": round(p50, 3),
                "p80_us": round(p80, 3),
                "repeats": setting.repeats,
                "rotated_bytes": rotated_bytes,
                "cold": rotated_bytes >= setting.rotation_bytes,
                "num_bytes": case.num_bytes,
                "gb_per_s": round(gb_per_s, 3),
                "percent_of_copy": round(100 * gb_per_s / copy_gb_per_s, 2),
                "peers_p50_us": peers_us,
                "failed_peers": failed,
                "refused": refused,
            }
        )
    return figures
