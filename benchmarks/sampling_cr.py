"""Tokens per verify pass when sampling: drafts coupled to the target's draws, and rejection.

`python benchmarks/sampling_cr.py` samples held-out Python with tiny-py and both of its adapters, by
both rules from the same prompts and seeds. Nothing is timed. Prints a table and its bars, appends
one JSON line; the exit code is 1 if coupled ids differ from plain decoding's or a bar is missed.
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
from benchmarks.provenance import ROOT, append, machine
from benchmarks.racing import Prompts, pooled
from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS, DRAFT_SAMPLINGS
from kangaroo.evals.paired import Run, run_once
from kangaroo.evals.prompts import held_out_prompts

FIXED = {"adaptive": False}
BOLD = FIXED | {"max_depth": 6, "confidence": 0.0}  # every draft as long as it may be
DRAFTS: dict[str, dict[str, Any]] = {
    "chain of 6": BOLD,
    "chain as deployed": FIXED,
    "tree of 16": BOLD | {"draft": "tree"},
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="tiny-py", help="a folder with adapters/<kind> in it")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--prompt-len", type=int, default=80, help="tokens")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.5, 0.8, 1.0])
    parser.add_argument("--seeds", type=int, default=1, help="continuations of each prompt")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/sampling_cr.jsonl")
    return parser.parse_args()


def decode(llm: KangarooForCausalLM, prompts: Prompts, given: argparse.Namespace) -> list[Any]:
    """One row for each rule, way of drafting and temperature."""

    def runs(temperature: float, **options: Any) -> list[Run]:
        options |= {"do_sample": True, "temperature": temperature, "top_k": 0}
        return [
            run_once(llm, ids, max_new_tokens=given.new_tokens, seed=seed, **options)
            for ids in prompts.values()
            for seed in range(given.seeds)
        ]

    rows = []
    for temperature in given.temperatures:
        plain = [run.token_ids for run in runs(temperature, draft="off")]
        for name, draft in DRAFTS.items():
            for rule in DRAFT_SAMPLINGS:
                done = runs(temperature, draft_sampling=rule, **draft)
                speculation = pooled(done)
                ratio = speculation.compression_ratio
                first = speculation.accepted_at[0] / speculation.drafted_at[0]
                row = {"temperature": temperature, "name": name, "rule": rule}
                row |= {"compression_ratio": round(ratio, 4), "first_accepted": round(first, 4)}
                row["drafted_per_round"] = speculation.num_drafted / speculation.num_rounds
                row["identical"] = [run.token_ids for run in done] == plain
                rows.append(row)
    return rows


def bars_of(kind: str, rows: list[Any]) -> list[Bar]:
    """No coupled id differs; and a chain's first draft is met as often as theory promises.

    Rejection keeps it with probability 1 - d, d the mean distance of the two rows; (1 - d) / (1 +
    d) is convex, so what it is of the mean is a floor for the mean.
    """
    coupled = [row for row in rows if row["rule"] == "coupled"]
    same = sum(row["identical"] for row in coupled) / len(coupled)
    bars = [Bar(f"{kind}: coupled contestants with the ids of plain decoding", same, 1.0)]
    first = {(r["temperature"], r["name"], r["rule"]): r["first_accepted"] for r in rows}
    name = next(iter(DRAFTS))
    for temperature in sorted({row["temperature"] for row in rows}):
        kept = first[temperature, name, "rejection"]
        label = f"{kind}: first drafts met at temperature {temperature}"
        bars.append(Bar(label, first[temperature, name, "coupled"], kept / (2 - kept)))
    return bars


def main() -> int:
    """Decode, print, append."""
    given = parse()
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    results, bars = {}, []
    for kind in ADAPTER_KINDS:
        llm = KangarooForCausalLM.from_pretrained(given.model, kind)
        prompts = held_out_prompts(llm.tokenizer, given.prompts, given.prompt_len)
        results[kind] = decode(llm, prompts, given)
        for row in results[kind]:
            print(
                f"{kind:12} temperature {row['temperature']:.1f} {row['name']:18}{row['rule']:10}"
                f"CR {row['compression_ratio']:.3f}, {row['drafted_per_round']:4.1f} drafted a "
                f"round, the first accepted in {100 * row['first_accepted']:.1f} %"
            )
        bars += bars_of(kind, results[kind])
    print("\n".join(map(str, bars)))
    record = machine(torch.device("cpu")) | {
        "benchmark": "sampling_cr",
        "arguments": {k: v for k, v in vars(given).items() if not isinstance(v, Path)},
        "prompts": list(prompts),
        "results": results,
        "bars": [bar.as_dict() for bar in bars],
    }
    append(record, given.out)
    return exit_code(bars)


if __name__ == "__main__":
    sys.exit(main())
