"""Every op at the shapes of real models, beside its peers: `python benchmarks/kernels/run.py`.

The copy bandwidth of the machine is measured first, and every figure is a fraction of it. Appends
one JSON line per figure to benchmarks/results/<op>.jsonl. No figure without a green gate: the tests
of the ops run first, or `--gate` names the JUnit report of `pytest tests/kernels --junitxml=...`,
made after the last change of a source file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # for `benchmarks` when run as a file

from benchmarks import peers
from benchmarks.harness import Case, Setting, copy_bandwidth, measure
from benchmarks.models import SWEEPS
from benchmarks.provenance import ROOT, machine, run_gate
from kangaroo_kernels import Backend, Target
from kangaroo_kernels.kernel_set import IMPLS, explain, load_impl


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ops", nargs="*", help="default: all", metavar="OP")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="on a GPU: one model, few shapes")
    parser.add_argument(
        "--backend", choices=[b.value for b in Backend], help="default: all that run"
    )
    parser.add_argument("--dtype", default=None, help="default: float32 on a CPU, else bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--gate", type=Path, help="JUnit report of a run of the tests")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    if unknown := set(arguments.ops) - IMPLS.keys():
        parser.error(f"expected ops among {', '.join(IMPLS)}, got {', '.join(sorted(unknown))}")
    return arguments


def setting_of(arguments: argparse.Namespace) -> Setting:
    on_gpu = arguments.device != "cpu"
    sweep = SWEEPS["quick" if on_gpu and arguments.quick else arguments.device]
    dtype = arguments.dtype or ("bfloat16" if on_gpu else "float32")
    return Setting(
        device=torch.device(arguments.device),
        dtype=getattr(torch, dtype),
        repeats=arguments.repeats,
        sweep=sweep,
        compiled=on_gpu and not arguments.quick,
    )


def implementations(op: str, setting: Setting, asked: str | None) -> dict[str, Callable[..., Any]]:
    """The implementations to time; one that was asked for must run."""
    target = Target(setting.device, setting.dtype, setting.sweep.models[0].heads.head_dim)
    wanted = [Backend(asked)] if asked else [b for b, why in explain(op, target).items() if not why]
    if not asked and setting.device.type == "cuda":
        wanted = [b for b in wanted if b != Backend.REFERENCE]  # the definition, not a contender
    return {backend.value: load_impl(op, backend, target) for backend in wanted}


def shown(figure: dict[str, Any]) -> str:
    """One line."""
    shape = " ".join(f"{key}={size}" for key, size in figure["shape"].items())
    beside = [f"{name} x{us / figure['p50_us']:.2f}" for name, us in figure["peers_p50_us"].items()]
    beside += [f"{name} failed" for name in figure["failed_peers"]]
    beside += [f"{name} refuses" for name in figure["refused"]]
    return (
        f"{figure['case']:24} {shape:36} {figure['backend']:10} {figure['p50_us']:9.1f} us "
        f"{figure['percent_of_copy']:6.1f} %{' ' if figure['cold'] else '*'} {', '.join(beside)}"
    )


def worst(figures: Iterable[dict[str, Any]]) -> str:
    """Of an op: the smallest part of the copy bandwidth, and the smallest lead over a peer."""
    figures = list(figures)
    slowest = min(figures, key=lambda figure: figure["percent_of_copy"])
    raced = [(us / f["p50_us"], name, f) for f in figures for name, us in f["peers_p50_us"].items()]
    said = f"at least {slowest['percent_of_copy']:.1f} % of copy ({slowest['case']})"
    if raced:
        lead, name, at = min(raced, key=lambda race: race[0])
        said += f"; at least {lead:.2f} times {name} ({at['case']} {at['shape']})"
    return said


def made(op: str, setting: Setting) -> Iterator[Case]:
    """The cases of an op, their tensors on the device; a default device would slow every call."""
    cases = import_module(f"benchmarks.kernels.bench_{op}").cases(setting)
    while True:
        torch.compiler.reset()  # a peer that was compiled too often would silently run eagerly
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()
        with setting.device:
            case = next(cases, None)
        if case is None:
            return
        yield case


def main() -> None:
    """Gate, measure the copy bandwidth, then every op."""
    arguments = parse()
    ops = arguments.ops or list(IMPLS)
    setting = setting_of(arguments)
    contenders = {op: implementations(op, setting, arguments.backend) for op in ops}
    gates = {op: run_gate(op, list(contenders[op]), arguments.gate) for op in ops}
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        copy_gb_per_s = copy_bandwidth(setting)
        shared = {"dtype": str(setting.dtype).removeprefix("torch."), **machine(setting.device)}
        shared |= {"copy_gb_per_s": round(copy_gb_per_s, 2), "absent_peers": peers.absent()}
        print(*(f"{key}={shared[key]}" for key in ("device", "copy_gb_per_s", "absent_peers")))
        print("* what the call touches stays in a cache")
        for op in ops:
            print(f"\n{op}")
            taken: dict[str, list[dict[str, Any]]] = {}
            for case in made(op, setting):
                figures = measure(case, contenders[op], setting, copy_gb_per_s)
                if not figures:
                    print(f"{case.name:24} refused by {', '.join(contenders[op])}")
                for figure in figures:
                    print(shown(figure), flush=True)
                    taken.setdefault(figure["backend"], []).append(figure)
                    line = {"op": op, "gate": gates[op], **shared, **figure}
                    with (arguments.out / f"{op}.jsonl").open("a") as file:
                        file.write(json.dumps(line) + "\n")
            for backend, every in taken.items():
                print(f"{backend}: {worst(every)}")


if __name__ == "__main__":
    main()
