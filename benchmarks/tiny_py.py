"""Races tiny-py on held-out Python: autoregressive, transformers' generate, and both adapter kinds.

`python benchmarks/tiny_py.py` tunes each adapter's stopping rule on some held-out files of the
standard library and measures on others, everyone in turns on every prompt. Speed is that of
decoding, prefill apart. Prints a table and appends one JSON line; the exit code is 1 if ids differ.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import torch
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks.provenance import ROOT, append, installed, machine
from benchmarks.racing import Decode, race, result, show, split, tune
from benchmarks.transformers_peer import Transformers, load
from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS
from kangaroo.evals.paired import run_once
from kangaroo.evals.prompts import held_out_prompts

AUTOREGRESSIVE, PEER = "autoregressive", "transformers"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="tiny-py", help="a folder with adapters/<kind> in it")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--tuning-prompts", type=int, default=10)
    parser.add_argument("--prompt-len", type=int, default=80, help="tokens")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/tiny_py.jsonl")
    return parser.parse_args()


def main() -> int:
    """Tune, race, print, append."""
    given = parse()
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    llms = {
        kind: KangarooForCausalLM.from_pretrained(given.model, kind, backend=given.backend)
        for kind in ADAPTER_KINDS
    }
    some = llms[ADAPTER_KINDS[0]]
    prompts = held_out_prompts(
        some.tokenizer, given.prompts + given.tuning_prompts, given.prompt_len
    )
    tuning, measured = split(prompts, given.tuning_prompts)
    rules = tune(llms, tuning, given.new_tokens)

    def decode_with(kind: str, max_depth: int, confidence: float) -> Decode:
        options = {"max_depth": max_depth, "confidence": confidence, "adaptive": False}
        return lambda ids: run_once(llms[kind], ids, max_new_tokens=given.new_tokens, **options)

    contestants: dict[str, Decode] = {
        AUTOREGRESSIVE: decode_with(ADAPTER_KINDS[0], 0, 0.0),
        PEER: Transformers(load(some.path), given.new_tokens),
    }
    for kind, (best, *_) in rules.items():
        contestants[kind] = decode_with(kind, best.max_depth, best.confidence)
    runs = race(contestants, measured, given.repeats)
    rows = [result(name, own, runs[AUTOREGRESSIVE]) for name, own in runs.items()]
    show(rows)
    record = machine(torch.device("cpu")) | {
        "benchmark": "tiny_py",
        "python": platform.python_version(),
        "transformers": installed("transformers"),
        "arguments": {k: v for k, v in vars(given).items() if not isinstance(v, Path)},
        "rules": {kind: [vars(rule) for rule in found] for kind, found in rules.items()},
        "prompts": list(measured),
        "results": rows,
    }
    append(record, given.out)
    return int(any(row["identical_prompts"] < row["num_prompts"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
