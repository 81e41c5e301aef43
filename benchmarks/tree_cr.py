"""Tokens per verify pass on held-out Python: chains and trees of equal depth, and behind copies.

`python benchmarks/tree_cr.py` decodes with tiny-py and both of its adapters. Nothing is timed: the
figures are counts and the same on every machine, but for near-ties. Prints a table and its bars,
appends one JSON line; the exit code is 1 if ids differ from plain decoding or a bar is missed.
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
from kangaroo.config import ADAPTER_KINDS
from kangaroo.evals.paired import Run, run_once
from kangaroo.evals.prompts import held_out_prompts

CHAIN, COPIES = "chain", {"lookup": 3}
TREES: dict[str, dict[str, int]] = {f"tree of {n}": {"max_nodes": n} for n in (8, 16, 32, 64)}
GATED, GAIN = "tree of 16", 1.15  # the default, over the chain of the same depth and confidence
WAYS: dict[str, dict[str, int]] = {
    CHAIN: {},
    **TREES,
    f"lookup, {CHAIN}": COPIES,
    f"lookup, {GATED}": TREES[GATED] | COPIES,
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="tiny-py", help="a folder with adapters/<kind> in it")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--prompt-len", type=int, default=80, help="tokens")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--max-depth", type=int, default=6)
    parser.add_argument("--confidences", type=float, nargs="+", default=[0.0, 0.4])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/tree_cr.jsonl")
    return parser.parse_args()


def decode(llm: KangarooForCausalLM, prompts: Prompts, given: argparse.Namespace) -> list[Any]:
    """One row for each contestant: what it drafted with, its CR, and whether its ids are right."""

    def runs(**options: Any) -> list[Run]:
        return [
            run_once(llm, ids, max_new_tokens=given.new_tokens, **options)
            for ids in prompts.values()
        ]

    plain = [run.token_ids for run in runs(draft="off")]
    rows = []
    for confidence in given.confidences:
        rule = {"max_depth": given.max_depth, "confidence": confidence}
        for name, options in WAYS.items():
            kind = "tree" if "max_nodes" in options else "chain"
            done = runs(draft=kind, adaptive=False, **rule, **options)
            speculation = pooled(done)
            row = {"name": name, "compression_ratio": round(speculation.compression_ratio, 4)}
            row["drafted_per_round"] = round(speculation.num_drafted / speculation.num_rounds, 2)
            row["identical"] = [run.token_ids for run in done] == plain
            rows.append(rule | row)
    return rows


def bars_of(kind: str, rows: list[Any]) -> list[Bar]:
    """The gain of the gated tree at every confidence; and that no id differs."""
    ratio = {(row["name"], row["confidence"]): row["compression_ratio"] for row in rows}
    gains = [
        Bar(
            f"{kind}: CR of a {GATED} over the chain's, confidence {confidence}",
            ratio[GATED, confidence] / ratio[CHAIN, confidence],
            GAIN,
        )
        for confidence in sorted({confidence for _, confidence in ratio})
    ]
    same = sum(row["identical"] for row in rows) / len(rows)
    return [*gains, Bar(f"{kind}: contestants with the ids of plain decoding", same, 1.0)]


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
                f"{kind:12} confidence {row['confidence']:.1f} {row['name']:18} CR "
                f"{row['compression_ratio']:.3f}, {row['drafted_per_round']:4.1f} drafted a round"
            )
        bars += bars_of(kind, results[kind])
    print("\n".join(map(str, bars)))
    record = machine(torch.device("cpu")) | {
        "benchmark": "tree_cr",
        "arguments": {k: v for k, v in vars(given).items() if not isinstance(v, Path)},
        "prompts": list(prompts),
        "results": results,
        "bars": [bar.as_dict() for bar in bars],
    }
    append(record, given.out)
    return exit_code(bars)


if __name__ == "__main__":
    sys.exit(main())
