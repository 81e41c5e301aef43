"""Decoding on a CPU, with everything it is held to: `python benchmarks/cpu_decode.py`.

Three parts. `decode`: tiny-py on held-out Python, our loop beside llama.cpp, transformers and
Kangaroo, everyone in turns on every prompt, prefill apart. `verify`: 8 rows against 1 through a
layer of a Llama-3.2-1B. `bits`: the logits that every token was chosen from, speculation on against
off, in float32 and in bfloat16. Prints PASS or FAIL for every bar and appends one JSON line; the
exit code is 1 on a FAIL. Peers that are not installed are named; `pip install -e ".[bench]"` has
them.
"""

from __future__ import annotations

import argparse
import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks import logit_bits
from benchmarks.bars import Bar, exit_code
from benchmarks.cpu_race import COMPILE_MODES, Terms, decode_bars
from benchmarks.logit_bits import RULES, compare, plan
from benchmarks.provenance import ROOT, append, installed, machine
from benchmarks.racing import split
from benchmarks.verify_rows import verify_bars
from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS
from kangaroo.evals.prompts import held_out_prompts
from kangaroo_kernels.native import C as native_core

PARTS = ("decode", "verify", "bits")
NUM_HELD_OUT = 50  # every Python has as many files that are long enough
PROMPT_LEN = 80
VERIFY_TURNS = 20  # per repeat
BITS_DTYPES = ("float32", "bfloat16")
BUSY_LOAD = 0.5  # more runnable threads than that in the last minute were not ours
FULL = {"prompts": 16, "tuning_prompts": 4, "new_tokens": 128, "repeats": 3, "bits_tokens": 50_000}
QUICK = {"prompts": 2, "tuning_prompts": 0, "new_tokens": 48, "repeats": 1, "bits_tokens": 2048}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=PARTS, help="default: all three")
    parser.add_argument("--isa", help="instruction set; default: the processor's best")
    parser.add_argument("--quick", action="store_true", help="small defaults, no torch.compile")
    for name, default in FULL.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, help=f"default: {default}, quick {QUICK[name]}")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/cpu_decode.jsonl")
    given = parser.parse_args(arguments)
    for name, default in (QUICK if given.quick else FULL).items():
        if getattr(given, name) is None:
            setattr(given, name, default)
    return given


def decode(given: argparse.Namespace) -> tuple[list[Bar], dict[str, Any]]:
    """The race."""
    llms = native()
    reference = KangarooForCausalLM.from_pretrained("tiny-py", backend="reference")
    num_prompts = given.prompts + given.tuning_prompts
    prompts = held_out_prompts(reference.tokenizer, num_prompts, PROMPT_LEN)
    tuning, measured = (
        split(prompts, given.tuning_prompts) if given.tuning_prompts else ({}, prompts)
    )
    modes = () if given.quick else COMPILE_MODES
    terms = Terms(given.threads, given.new_tokens, given.repeats, measured, tuning, modes)
    return decode_bars(llms, reference, terms)


def verify(given: argparse.Namespace) -> tuple[list[Bar], dict[str, Any]]:
    """Rows through a layer."""
    return verify_bars(given.repeats * VERIFY_TURNS)


def bits(given: argparse.Namespace) -> tuple[list[Bar], dict[str, Any]]:
    """Speculation on against off, in each dtype."""
    found: list[Bar] = []
    record: dict[str, Any] = {}
    for dtype in BITS_DTYPES:
        llms = native(dtype)
        some = llms[ADAPTER_KINDS[0]]
        room = some.model.config.max_seq_len - PROMPT_LEN
        settings = len(llms) * len(RULES)
        num_prompts, new_tokens = plan(NUM_HELD_OUT, settings, given.bits_tokens, room)
        prompts = held_out_prompts(some.tokenizer, num_prompts, PROMPT_LEN)
        tally = compare(llms, prompts.values(), new_tokens)
        print(
            f"{dtype}: {tally.num_tokens} tokens by {len(llms)} adapters and {len(RULES)} rules "
            f"against {tally.num_plain_tokens} without speculation: {tally.differing_bits} bits "
            "differ"
        )
        record[dtype] = vars(tally) | {"num_prompts": num_prompts, "new_tokens": new_tokens}
        bars = logit_bits.bars(tally, given.bits_tokens)
        found += [replace(bar, name=f"{bar.name}, {dtype}") for bar in bars]
    return found, record | {"rules": RULES}


def native(dtype: str = "float32") -> dict[str, KangarooForCausalLM]:
    """tiny-py with each adapter, on the native backend."""
    return {
        kind: KangarooForCausalLM.from_pretrained("tiny-py", kind, backend="native", dtype=dtype)
        for kind in ADAPTER_KINDS
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, append."""
    given = parse(arguments)
    torch.set_num_threads(given.threads)
    if given.isa is not None:
        native_core.select_isa(given.isa)
    logging.disable_progress_bar()
    record = machine(torch.device("cpu")) | {
        "benchmark": "cpu_decode",
        "python": platform.python_version(),
        "transformers": installed("transformers"),
        "arguments": {k: v for k, v in vars(given).items() if not isinstance(v, Path)},
    }
    print(f"{record['device']}, {given.threads} threads; load {record['load_1min']} at the start")
    bars: list[Bar] = []
    parts = {"decode": decode, "verify": verify, "bits": bits}
    for name in [given.only] if given.only else PARTS:
        found, record[name] = parts[name](given)
        bars += found
    for bar in bars:
        print(bar)
    # Peers whose threads spin at a barrier are starved by other work more than ours are.
    record["busy"] = record["load_1min"] > BUSY_LOAD
    if record["busy"]:
        print("The machine was busy at the start: no verdict on a speed means anything.")
    record["bars"] = [bar.as_dict() for bar in bars]
    append(record, given.out)
    return exit_code(bars)


if __name__ == "__main__":
    sys.exit(main())
