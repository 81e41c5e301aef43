"""Decoding at real sizes, measured against the bytes: `python benchmarks/decode.py --shape NAME`.

Random weights at a real shape, made on the device, or `--target` and `--adapter` from folders, or
these at a real shape (`--shape vicuna-7b --target tiny-py`): real text and acceptance. The copy
bandwidth of the machine is measured first. `steps`: autoregressive step, draft step, draft,
verification at two widths, acceptance and whole rounds, by context and batch: bytes, GB/s, percent
of a copy, and where a round's time goes. `race`: whole continuations of a batch of one beside
peers on the same weights. Appends one JSON line per figure. Nothing is timed without a green gate:
tests of the ops and of the engine run first, or `--gate` names the JUnit report of a run. On a GPU
it says of every bar whether it is held; the exit code is 1 if drafting changes a token.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks.bars import Bar, exit_code
from benchmarks.decode_bars import race_bar, step_bars
from benchmarks.decode_case import Case, refusal
from benchmarks.decode_race import PEERS, Drafting, run_race
from benchmarks.decode_steps import measure
from benchmarks.harness import Setting, copy_bandwidth
from benchmarks.models import SHAPES, SWEEPS
from benchmarks.provenance import ROOT, append, machine, run_gate
from benchmarks.racing import Terms
from benchmarks.subjects import Source, Subject, subject
from kangaroo.config import ADAPTER_KINDS
from kangaroo.engine.loading import DTYPES
from kangaroo_kernels import Backend

PARTS = ("steps", "race")
CONTEXTS = {"cpu": (128, 512), "cuda": (128, 2048, 8192, 32768)}
BATCHES = {"cpu": (1, 4), "cuda": (1, 4, 16)}
COMPILE_MODES = {"cpu": ("default",), "cuda": ("reduce-overhead",)}
DEPTH = 3  # as in the design's byte budget
TREE = {"max_nodes": 16}
# By device: folder and name of the tests without which nothing of the engine is timed.
GATES = {"cpu": ("lossless", "bits"), "cuda": ("lossless", "gpu")}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=list(SHAPES), help="random weights, or the target's")
    parser.add_argument("--target", help="a folder, or tiny-py; with --shape it is widened")
    parser.add_argument("--adapter", help="a folder, or the name of one in the target's")
    parser.add_argument("--kind", choices=ADAPTER_KINDS, default="deep_prefix", help="if random")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=device)
    parser.add_argument("--dtype", choices=list(DTYPES), help="float32 on a CPU, else bfloat16")
    backends = ["auto", *(backend.value for backend in Backend)]
    parser.add_argument("--backend", choices=backends, default="auto")
    parser.add_argument("--context", type=int, nargs="+", metavar="TOKENS")
    parser.add_argument("--batch", type=int, nargs="+", metavar="SEQUENCES")
    parser.add_argument("--depth", type=int, help=f"of drafts; steps: {DEPTH}, race: the adapter's")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--prompt-len", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=20, help="of every step; a race has 3")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gate", type=Path, help="JUnit report of a run of the tests")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/decode.jsonl")
    given = parser.parse_args(arguments)
    if not (given.shape or given.target):
        parser.error("expected --shape, --target, or both")
    given.context = given.context or CONTEXTS[given.device]
    given.batch = given.batch or BATCHES[given.device]
    given.dtype = DTYPES[given.dtype or ("float32" if given.device == "cpu" else "bfloat16")]
    return given


def subject_of(given: argparse.Namespace) -> Subject:
    """What the arguments ask for, with room for all contexts where the weights are random."""
    cases = [case_of(given, context, 1).num_slots for context in given.context]
    return subject(
        Source(
            model=SHAPES[given.shape] if given.shape else None,
            target=given.target,
            adapter=given.adapter,
            kind=given.kind,
            device=torch.device(given.device),
            dtype=given.dtype,
            backend=given.backend,
            num_slots=max(*cases, given.prompt_len + given.new_tokens),
        )
    )


def case_of(given: argparse.Namespace, context: int, batch: int) -> Case:
    return Case(context, batch, given.depth or DEPTH, given.repeats)


def gate(timed: Subject, given: argparse.Namespace) -> list[str]:
    """How we know that the ops which serve and the engine are right; SystemExit if they are not."""
    serving = timed.model.kernels.backends
    passed = [run_gate(op, [backend], given.gate) for op, backend in serving.items()]
    folder, name = GATES[given.device]
    return sorted({*passed, run_gate(name, [], given.gate, folder)})


def steps(
    timed: Subject, given: argparse.Namespace, setting: Setting, shared: dict[str, Any]
) -> list[dict[str, Any]]:
    """Every context and batch; what cannot be had is said, and kept."""
    print(f"{'step':12}{'context':>8}{'batch':>6}{'us p20':>11}{'p50':>11}{'p80':>11}{'GB/s':>9}")
    figures = []
    for context in given.context:
        for batch in given.batch:
            case = case_of(given, context, batch)
            if why := refusal(timed, case):
                print(f"{'':12}{context:8}{batch:6}  not measured: {why}")
                place = {"context": context, "batch": batch}
                append(shared | place | {"not_measured": why}, given.out)
                continue
            for figure in measure(timed, case, setting, shared["copy_gb_per_s"]):
                print(shown(figure), flush=True)
                append(shared | figure, given.out)
                figures.append(figure)
    return figures


def shown(figure: dict[str, Any]) -> str:
    """One line, and of a round another two."""
    line = (
        f"{figure['step']:12}{figure['context']:8}{figure['batch']:6}{figure['p20_us']:11.1f}"
        f"{figure['p50_us']:11.1f}{figure['p80_us']:11.1f}{figure['gb_per_s']:9.1f} "
        f"{figure['percent_of_copy']:6.1f} % of copy, {figure['num_bytes'] / 1e9:.3f} GB"
    )
    if "breakdown_us" in figure:
        parts = ", ".join(f"{name} {us:.1f}" for name, us in figure["breakdown_us"].items())
        line += f"\n{'':12}of it {parts}; peak memory {figure['peak_bytes'] / 1e9:.2f} GB"
    if figure.get("launches"):
        line += f"\n{'':12}" + ", ".join(f"{n} {name}" for name, n in figure["launches"].items())
    return line


def raced(
    timed: Subject, given: argparse.Namespace, shared: dict[str, Any]
) -> tuple[Bar, list[dict[str, Any]]]:
    """The race: what drafting has to keep, and the rows."""
    prompts = timed.prompts(given.prompts, given.prompt_len)
    modes = COMPILE_MODES[given.device]
    terms = Terms(given.threads, given.new_tokens, 3, prompts, {}, modes)
    chain = {} if given.depth is None else {"max_depth": given.depth}
    rows, missing, bar = run_race(timed, Drafting(chain, TREE | chain), given.peers, terms)
    shared = shared | {"context": given.prompt_len, "new_tokens": given.new_tokens}
    for row in rows:
        append(shared | {"contestant": row["name"]} | row, given.out)
    append(shared | {"missing": missing}, given.out)
    return bar, rows


def main(arguments: list[str] | None = None) -> int:
    """Gate, copy bandwidth, steps, race."""
    given = parse(arguments)
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    logging.disable_progress_bar()
    timed = subject_of(given)
    gates = gate(timed, given)
    setting = Setting(torch.device(given.device), given.dtype, given.repeats, SWEEPS["cpu"])
    copy_gb_per_s = copy_bandwidth(setting)
    shared = machine(setting.device) | {
        "benchmark": "decode",
        "shape": timed.name,
        "weights": "random" if timed.path is None else timed.name,
        "dtype": str(given.dtype).removeprefix("torch."),
        "backends": timed.model.kernels.backends,
        "adapter": timed.adapter.config.kind,
        "exit_layer": timed.adapter.config.exit_layer,
        "num_layers": timed.model.config.num_layers,
        "copy_gb_per_s": round(copy_gb_per_s, 2),
        "gate": gates,
        "seed": given.seed,
    }
    print(f"{shared['device']}: a copy moves {copy_gb_per_s:.1f} GB/s; {timed.name}, {given.dtype}")
    bars, exact = [], []
    if given.only != "race":
        bars += step_bars(steps(timed, given, setting, shared), shared["copy_gb_per_s"])
    if given.only != "steps":
        bar, rows = raced(timed, given, shared)
        exact = [bar]
        bars += [race_bar(row) for row in rows if "allowed_speedup" in row]
    bars = exact + (bars if given.device == "cuda" else [])
    print("\n".join(map(str, bars)))
    append(shared | {"bars": [bar.as_dict() for bar in bars]}, given.out)
    return exit_code(exact)


if __name__ == "__main__":
    sys.exit(main())
