"""How products are best cut on this GPU: `python benchmarks/tilings.py`.

Triton's products at the shapes of a layer and a head of Vicuna-7B and Llama-3.1-8B, bfloat16, by
tilings beside the one that `Tiling.of` takes; 1 and 16 rows of x. Prints them in the order of their
time and appends a JSON line each to benchmarks/results/tilings.jsonl. Needs a CUDA device, and
tests of linear and gated_mlp that pass: they are run first, or `--gate` names a JUnit report.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks.harness import Setting, copy_bandwidth, prepared_cuda, quantiles
from benchmarks.models import LLAMA_8B, SWEEPS, VICUNA_7B
from benchmarks.provenance import ROOT, append, machine, run_gate
from kangaroo_kernels.triton_gemm import WAVE, Epilogue, Tiling, product

DTYPE = torch.bfloat16
ROWS = (1, 16)
# Rows of the weight in a tile, columns at once, warps, stages.
CUTS = (
    *((16, columns, 2, stages) for columns, stages in ((256, 6), (512, 3), (512, 4), (1024, 3))),
    *((32, columns, 4, 3) for columns in (128, 512)),
    *((64, columns, 4, stages) for columns, stages in ((64, 6), (256, 3))),
    (128, 128, 4, 3),
)
SPLITS = (2, 4)


def shapes() -> Iterator[tuple[str, int, int, bool]]:
    """Name, outputs, columns, and whether they are gates and ups."""
    for model in (VICUNA_7B, LLAMA_8B):
        c, q_width = model.hidden, model.heads.h_q * model.heads.head_dim
        yield f"{model.name} qkv", model.qkv_width, c, False
        yield f"{model.name} output", c, q_width, False
        yield f"{model.name} gate, up", model.ffn, c, True
        yield f"{model.name} down", c, model.ffn, False
        yield f"{model.name} head", model.vocab, c, False


def tilings(num_out: int, width: int, gated: bool) -> list[Tiling]:
    """The one that is taken, and others."""
    taken = Tiling.of(num_out, width, DTYPE.itemsize, gated=gated)
    found = [taken]
    for rows, columns, warps, stages in CUTS:
        block_n = rows // 2 if gated else rows
        few = -(-num_out // block_n) <= WAVE
        for split in (1,) if gated or not few else (1, *SPLITS):
            found.append(Tiling(block_n, columns, split, warps, stages, 4 if few else 2))
    return list(dict.fromkeys(found))


def inputs(num_rows: int, num_out: int, width: int, gated: bool) -> tuple[Tensor, ...]:
    """x, weight, out."""
    x = torch.randn(num_rows, width).to(DTYPE)
    weight = torch.empty(2 * num_out if gated else num_out, width, dtype=DTYPE).normal_(std=0.02)
    return x, weight, torch.empty(num_rows, num_out, dtype=DTYPE)


def measure(
    shape: tuple[int, int, bool], tiling: Tiling, copies: dict[int, list[tuple[Tensor, ...]]]
) -> dict[int, float]:
    """Microseconds by rows of x: medians."""
    around = Epilogue(gated=shape[2])
    taken = {}
    with patch.object(Tiling, "of", lambda *_, **__: tiling):
        for num_rows, data in copies.items():
            sample = prepared_cuda(lambda x, weight, out: product(x, weight, around, out), data)
            taken[num_rows] = round(quantiles([sample() for _ in range(7)])[1], 3)
    return taken


def figures(setting: Setting, copy_gb_per_s: float) -> Iterator[dict[str, Any]]:
    """Of every shape all tilings, the fastest at one row first."""
    for name, *shape in shapes():
        num_out, width, gated = shape
        num_bytes = (2 if gated else 1) * num_out * width * DTYPE.itemsize
        num_copies = max(2, -(-setting.rotation_bytes // num_bytes))
        with setting.device:
            copies = {n: [inputs(n, *shape) for _ in range(num_copies)] for n in ROWS}
        found = []
        for number, tiling in enumerate(tilings(*shape)):
            try:
                taken = measure((num_out, width, gated), tiling, copies)
            except Exception as error:  # tiles that fit no multiprocessor
                print(f"{name} {tiling}: {type(error).__name__}: {error}".splitlines()[0])
                continue
            percent = 100 * num_bytes / taken[ROWS[0]] / 1e3 / copy_gb_per_s
            figure = {"case": name, "us": taken, "percent_of_copy": round(percent, 2)}
            found.append(figure | {"tiling": asdict(tiling), "is_taken": number == 0})
        yield from sorted(found, key=lambda figure: figure["us"][ROWS[0]])


def main() -> None:
    """Gate, copy bandwidth, figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gate", type=Path, help="JUnit report of a run of the tests")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/tilings.jsonl")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("expected a CUDA device, got none")
    gates = [run_gate(op, ["triton"], given.gate) for op in ("linear", "gated_mlp")]
    setting = Setting(torch.device("cuda"), DTYPE, 50, SWEEPS["cpu"])
    with torch.inference_mode():
        copy_gb_per_s = copy_bandwidth(setting)
        shared = machine(setting.device) | {"benchmark": "tilings", "gate": sorted(set(gates))}
        shared |= {"copy_gb_per_s": round(copy_gb_per_s, 2)}
        print(f"{shared['device']}: a copy moves {copy_gb_per_s:.1f} GB/s")
        for figure in figures(setting, copy_gb_per_s):
            sizes = " ".join(map(str, figure["tiling"].values()))
            print(
                f"{figure['case']:24} {sizes:22} {figure['us'][1]:8.2f} us "
                f"{figure['percent_of_copy']:6.1f} % of copy, 16 rows {figure['us'][16]:8.2f} us"
                f"{'  taken' if figure['is_taken'] else ''}",
                flush=True,
            )
            append(shared | figure, given.out)


if __name__ == "__main__":
    main()
