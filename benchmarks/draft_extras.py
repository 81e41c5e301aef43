"""Tokens per verify pass, and bytes that a draft step reads of the head, of drafts from less than
the target's head: a copy in int8, draft vocabularies of the most frequent tokens of tiny-py's own
training text, both.

`python benchmarks/draft_extras.py` decodes held-out Python with tiny-py and both of its adapters,
chains and trees, greedily and sampled. Nothing is timed: the figures are counts and the same on
every machine, but for near-ties. Prints a table, appends one JSON line; the exit code is 1 if ids
differ from plain decoding.
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
from kangaroo.draft.head import describe
from kangaroo.engine.generation import eos_list
from kangaroo.evals.paired import Run, run_once
from kangaroo.evals.prompts import held_out_prompts
from kangaroo.models.draft_vocab import most_frequent
from kangaroo.zoo import corpus

MODES: dict[str, dict[str, Any]] = {
    "chain": {},
    "tree": {"draft": "tree"},
    "sampled chain": {"do_sample": True, "top_k": 0, "seed": 0},
    "sampled tree": {"draft": "tree", "do_sample": True, "top_k": 0, "seed": 0},
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="tiny-py", help="a folder with adapters/<kind> in it")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--prompt-len", type=int, default=80, help="tokens")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--texts", type=int, default=200, help="of the training text, counted")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 512, 256])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/draft_extras.jsonl")
    return parser.parse_args()


def vocabularies(
    llm: KangarooForCausalLM, num_texts: int, sizes: list[int]
) -> tuple[list[int], dict[int, Any]]:
    """How often each token is in some of the training texts, evenly along their order; and the most
    frequent ones by their number.
    """
    texts, _ = corpus.split(corpus.stdlib_files())
    stream = corpus.token_stream(llm.tokenizer, texts[:: max(1, len(texts) // num_texts)])
    counts = torch.bincount(stream, minlength=llm.model.config.vocab_size)
    counts[llm.tokenizer.bos_token_id] = 0
    ends = eos_list(llm.generation_config.eos_token_id)
    return counts.tolist(), {size: most_frequent(counts, size, ends) for size in sizes}


def decode(
    llm: KangarooForCausalLM, prompts: Prompts, new_tokens: int, plain: dict[str, list[list[int]]]
) -> list[dict[str, Any]]:
    """One row for each mode; `plain` keeps the ids without drafting."""

    def runs(options: dict[str, Any]) -> list[Run]:
        return [run_once(llm, p, max_new_tokens=new_tokens, **options) for p in prompts.values()]

    rows = []
    for mode, options in MODES.items():
        if mode not in plain:
            plain[mode] = [run.token_ids for run in runs(options | {"draft": "off"})]
        done = runs(options)
        speculation = pooled(done)
        row = {"mode": mode, "compression_ratio": round(speculation.compression_ratio, 4)}
        row["acceptance_rate"] = round(speculation.acceptance_rate, 4)
        row["identical"] = [run.token_ids for run in done] == plain[mode]
        rows.append(row)
    return rows


def main() -> int:
    """Decode, print, append."""
    given = parse()
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    own = KangarooForCausalLM.from_pretrained(given.model, ADAPTER_KINDS[0])
    prompts = held_out_prompts(own.tokenizer, given.prompts, given.prompt_len)
    counts, ids = vocabularies(own, given.texts, given.sizes)
    extras: dict[str, dict[str, Any]] = {"head": {}, "int8": {"draft_head": "int8"}}
    extras |= {f"{size} tokens": {"draft_vocab": some} for size, some in ids.items()}
    largest = max(ids)
    extras[f"{largest} tokens, int8"] = {"draft_vocab": ids[largest], "draft_head": "int8"}
    results: list[dict[str, Any]] = []
    plain: dict[str, list[list[int]]] = {}
    for kind in ADAPTER_KINDS:
        for name, options in extras.items():
            llm = KangarooForCausalLM.from_pretrained(given.model, kind, **options)
            for row in decode(llm, prompts, given.new_tokens, plain):
                results.append({"adapter": kind, "drafts_from": name} | describe(llm.head) | row)
                print(
                    f"{kind:12}{name:20}{results[-1]['bytes_per_step']:>9} bytes a step "
                    f"{row['mode']:14} CR {row['compression_ratio']:.3f}"
                )
    coverage = {size: sum(counts[i] for i in some) / sum(counts) for size, some in ids.items()}
    for size, share in coverage.items():
        print(f"{size} tokens: {100 * share:.1f} % of the counted text")
    same = sum(row["identical"] for row in results) / len(results)
    bars = [Bar("runs with the ids of plain decoding", same, 1.0)]
    print(*bars, sep="\n")
    record = machine(torch.device("cpu")) | {
        "benchmark": "draft_extras",
        "arguments": {k: v for k, v in vars(given).items() if not isinstance(v, Path)},
        "prompts": list(prompts),
        "coverage": coverage,
        "results": results,
        "bars": [bar.as_dict() for bar in bars],
    }
    append(record, given.out)
    return exit_code(bars)


if __name__ == "__main__":
    sys.exit(main())
