"""What drafting costs where it does not pay: `python benchmarks/adversarial.py`.

tiny-py without drafting, with chains as they are asked for, and with chains that are adaptive, in
turns on every prompt: held-out Python, prompts of random tokens, and held-out Python with an
adapter whose weights are random, so that nearly every draft is wrong; that one with confidence 0
too, so that every draft is as long as it may be, and with copies of what followed the last token
alone before. Prints a table and its bars, appends one JSON line; the exit code is 1 if a bar is
missed or an id differs.

On a machine that others share: `--threads 1 --clock cpu`, which leaves out the time of others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks.bars import Bar, exit_code
from benchmarks.provenance import ROOT, append, machine
from benchmarks.racing import Prompts, pooled, speedup
from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS
from kangaroo.costs import RoundCosts
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.engine.stats import Speculation
from kangaroo.evals.paired import Run, take_turns
from kangaroo.evals.prompts import held_out_prompts

CLOCKS: dict[str, Callable[[], float]] = {"wall": perf_counter, "cpu": process_time}
WAYS: dict[str, dict[str, Any]] = {
    "off": {"draft": "off"},
    "fixed": {"adaptive": False},
    "adaptive": {"adaptive": True},
}
NORMAL = "held-out Python"
MOST_LOST, LEAST_KEPT = 0.05, 0.98


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--prompt-len", type=int, default=80, help="tokens")
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/adversarial.jsonl")
    return parser.parse_args()


def texts(
    kind: str, given: argparse.Namespace
) -> list[tuple[str, KangarooForCausalLM, Prompts, dict[str, Any]]]:
    """By name: who decodes what, by which rule."""
    llm = KangarooForCausalLM.from_pretrained("tiny-py", kind)
    lost = KangarooForCausalLM.from_pretrained("tiny-py", kind)
    assert lost.adapter is not None
    lost.adapter.reset(seed=0)
    named = held_out_prompts(llm.tokenizer, given.prompts, given.prompt_len)
    generator = torch.Generator().manual_seed(0)
    shape = len(named), given.prompt_len
    drawn = torch.randint(llm.model.config.vocab_size, shape, generator=generator).tolist()
    noise = {f"random {n}": ids for n, ids in enumerate(drawn)}
    return [
        (NORMAL, llm, named, {}),
        ("random tokens", llm, noise, {}),
        ("random adapter", lost, named, {}),
        ("random adapter, confidence 0", lost, named, {"confidence": 0.0}),
        ("random adapter, copies", lost, named, {"confidence": 0.0, "lookup": 1}),
        ("random tokens, copies", llm, noise, {"lookup": 1}),
    ]


def decode(
    llm: KangarooForCausalLM, ids: list[int], given: argparse.Namespace, **options: Any
) -> Run:
    """New tokens behind a prompt that is prefilled."""
    past, clock = llm.prefill(ids), CLOCKS[given.clock]
    options |= {"max_new_tokens": given.new_tokens, "eos_token_id": None}
    rounds = llm.rounds(ids, past_key_values=copy(past), **options)
    started = clock()
    for _ in rounds:
        pass
    return Run(rounds.tokens, 0.0, clock() - started, rounds.speculation)


def race(
    llm: KangarooForCausalLM, prompts: Prompts, given: argparse.Namespace, rule: dict[str, Any]
) -> dict[str, list[list[Run]]]:
    """Runs of every way: one list per prompt, one run per turn."""
    runs: dict[str, list[list[Run]]] = {way: [] for way in WAYS}
    for ids in prompts.values():
        bound = {
            way: lambda ids=ids, options=options | (rule if way != "off" else {}): decode(
                llm, ids, given, **options
            )
            for way, options in WAYS.items()
        }
        for way, taken in take_turns(bound, given.repeats).items():
            runs[way].append(taken)
    return runs


def figures(costs: RoundCosts | None, runs: dict[str, list[list[Run]]]) -> dict[str, Any]:
    """Speeds over no drafting and over each other, and what is the same on every machine; `costs`
    are of chains, None where there are copies too.
    """
    row: dict[str, Any] = {"runs": sum(map(len, runs["off"]))}
    for way in ("fixed", "adaptive"):
        speculation = pooled([taken[0] for taken in runs[way]])
        row[way] = {
            "over_off": round(speedup(runs[way], runs["off"]), 4),
            "compression_ratio": round(speculation.compression_ratio, 4),
            "drafted_per_token": round(speculation.num_drafted / speculation.num_tokens, 4),
        }
        if costs is not None:
            row[way]["rounds_per_token"] = round(rounds_per_token(costs, speculation), 4)
    row["adaptive_over_fixed"] = round(speedup(runs["adaptive"], runs["fixed"]), 4)
    everyone = zip(*runs.values(), strict=True)
    row["identical"] = all(
        len({tuple(run.token_ids) for taken in of_prompt for run in taken}) == 1
        for of_prompt in everyone
    )
    return row


def rounds_per_token(costs: RoundCosts, speculation: Speculation) -> float:
    """What chains cost, in rounds that draft nothing, by the costs that the engine goes by."""
    spent = sum(
        num_rounds * costs.of_round(1, depth, depth + 1)
        for depth, num_rounds in enumerate(speculation.drafted_lens)
    )
    return spent / speculation.num_tokens


def bars(rows: Sequence[dict[str, Any]]) -> list[Bar]:
    found = []
    for row in rows:
        what = f"{row['adapter']}, {row['text']}"
        if row["text"] == NORMAL:
            kept = row["adaptive_over_fixed"]
            found.append(Bar(f"{what}: adaptive over fixed", kept, LEAST_KEPT))
        else:
            lost = 1 / row["adaptive"]["over_off"] - 1
            found.append(Bar(f"{what}: lost", lost, MOST_LOST, at_least=False))
        found.append(Bar(f"{what}: same ids", float(row["identical"]), 1.0))
    return found


def main() -> int:
    """Decode in turns, print, append."""
    given = parse()
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    rows, started = [], perf_counter()
    for kind in ADAPTER_KINDS:
        for name, llm, prompts, rule in texts(kind, given):
            costs = KangarooDrafter(llm.model, llm.adapter, llm.draft_config()).costs()
            runs = race(llm, prompts, given, rule)
            row = figures(None if "lookup" in rule else costs, runs)
            rows.append({"adapter": kind, "text": name} | row)
            print(f"{kind:12} {name:29} fixed {row['fixed']}", flush=True)
            print(f"{'':42} adaptive {row['adaptive']}, over fixed {row['adaptive_over_fixed']}")
    held = bars(rows)
    print("\n".join(map(str, held)))
    record = machine(torch.device("cpu")) | {
        "benchmark": "adversarial",
        "arguments": {k: v for k, v in vars(given).items() if not isinstance(v, Path)},
        "results": rows,
        "seconds": round(perf_counter() - started, 1),
        "bars": [bar.as_dict() for bar in held],
    }
    append(record, given.out)
    return exit_code(held)


if __name__ == "__main__":
    sys.exit(main())
