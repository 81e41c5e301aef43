"""Verification: some rows through one layer of a Llama-3.2-1B, cold, against one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from benchmarks.bars import Bar
from benchmarks.harness import Setting, copy_bandwidth, prepared_cpu, quantiles
from benchmarks.models import LLAMA_1B, SWEEPS, Model
from benchmarks.subjects import random_target
from kangaroo.cache import SlotCache
from kangaroo.models.llama import Llama
from kangaroo_kernels import KernelSet, Target, UnsupportedError

ROWS = (1, 4, 8, 16)
LIMIT = 1.25
JUDGED = 8  # rows
DTYPES = (torch.float32, torch.bfloat16)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Figure:
    """Rows through a layer.

    Attributes:
        against_one: the median, over the turns, of the time beside that of one row.
        num_bytes: weights and keys and values that are read.
    """

    rows: int
    p20_us: float
    p50_us: float
    p80_us: float
    against_one: float
    num_bytes: int

    @property
    def gb_per_s(self) -> float:
        return self.num_bytes / self.p50_us / 1e3


class ColdLayer:
    """One layer after the other of a model, each behind `context` tokens of its own."""

    def __init__(self, model: Llama, context: int):
        config, like = model.config, model.weights.norm
        self.model, self.context = model, context
        self.caches = []
        for _ in range(config.num_layers):
            leading = (2, 1, config.num_kv_heads)
            cache = SlotCache(leading, config.max_seq_len, config.head_dim, like)
            cache.rows.normal_()
            cache.commit([context])
            self.caches.append(cache)

    def forward(self, h: torch.Tensor, layer: int) -> None:
        """Rows h [1, N, C] through a layer, and forgotten."""
        kv = self.caches[layer]
        self.model.layers(h, layer, layer + 1, kv, kv.chain(h.shape[1]))
        kv.num_nodes = 0

    def num_bytes(self) -> int:
        """Read by one call: weights, keys and values."""
        layer, config = self.model.weights.layers[0], self.model.config
        weights = [layer.input_norm, layer.qkv, layer.o, layer.post_norm, layer.gate_up, layer.down]
        kv = 2 * self.context * config.num_kv_heads * config.head_dim
        return sum(w.numel() for w in weights) * weights[0].itemsize + kv * weights[0].itemsize


def measure(layer: ColdLayer, rows: Sequence[int], repeats: int) -> list[Figure]:
    """All numbers of rows in turns, each on a layer that was used longest ago."""
    config, like = layer.model.config, layer.model.weights.norm
    samples = {}
    for place, num_rows in enumerate(rows):
        h = torch.randn(1, num_rows, config.hidden_size).to(like.dtype)
        turns = [(h, (place + turn) % config.num_layers) for turn in range(config.num_layers)]
        samples[num_rows] = prepared_cpu(layer.forward, turns)
    taken: dict[int, list[float]] = {num_rows: [] for num_rows in rows}
    for _ in range(repeats):
        for num_rows, sample in samples.items():
            taken[num_rows].append(sample())
    return [
        Figure(
            num_rows,
            *quantiles(times),
            median(t / one for t, one in zip(times, taken[rows[0]], strict=True)),
            layer.num_bytes(),
        )
        for num_rows, times in taken.items()
    ]


@torch.inference_mode()
def verify_bars(
    repeats: int, context: int = 512, sizes: Model = LLAMA_1B
) -> tuple[list[Bar], dict[str, Any]]:
    """The bar of each dtype, and all figures for JSON; prints them."""
    torch.manual_seed(0)
    setting = Setting(CPU, torch.float32, repeats, SWEEPS["cpu"])
    copy = copy_bandwidth(setting)
    print(f"one layer of {sizes.name}, context {context}; a copy moves {copy:.1f} GB/s")
    bars, record = [], {"model": sizes.name, "context": context, "copy_gb_per_s": round(copy, 2)}
    # As many layers as numbers of rows: a layer comes again when all others have been.
    config = replace(
        sizes.config, vocab_size=1, num_layers=len(ROWS), max_seq_len=context + max(ROWS)
    )
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        what = f"verify {JUDGED} rows against 1, {name}"
        try:
            target = Target(CPU, dtype, config.head_dim)
            model = random_target(config, target, KernelSet.resolve(target, "native"))
        except UnsupportedError as refusal:
            bars.append(Bar(what, None, LIMIT, at_least=False, note="unsupported"))
            record[name] = {"unsupported": str(refusal)}
            continue
        figures = measure(ColdLayer(model, context), ROWS, repeats)
        for f in figures:
            print(
                f"{name:10}{f.rows:4} rows {f.p50_us:10.1f} us  x{f.against_one:.3f} "
                f"{f.gb_per_s:8.2f} GB/s {100 * f.gb_per_s / copy:6.1f} % of copy"
            )
        [judged] = [f for f in figures if f.rows == JUDGED]
        bars.append(Bar(what, judged.against_one, LIMIT, at_least=False))
        record[name] = [
            {key: round(value, 3) for key, value in (vars(f) | {"gb_per_s": f.gb_per_s}).items()}
            | {"percent_of_copy": round(100 * f.gb_per_s / copy, 2)}
            for f in figures
        ]
    return bars, record
