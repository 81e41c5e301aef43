"""What sequences cost that are decoded together: `python benchmarks/batch_decode.py`.

tiny-py continues 16 held-out prompts of unequal length, 1 to 8 at a time, each as another leaves;
without drafting, and with chains of both adapters; in turns. Prints a table and its bar, appends
one JSON line; the exit code is 1 if a token differs from decoding alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks.bars import Bar, exit_code
from benchmarks.provenance import ROOT, append, machine
from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS
from kangaroo.draft.whole import chain_drafter
from kangaroo.engine.batch import Batch
from kangaroo.engine.decode import Decoder
from kangaroo.engine.state import Request
from kangaroo.evals.prompts import held_out_prompts

CAPACITIES = (1, 2, 4, 8)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/batch_decode.jsonl")
    return parser.parse_args()


def decoders() -> dict[str, Decoder]:
    """Drafting nothing, and drafting chains with each adapter as deployed, come what may and only
    where it pays.
    """
    made = {}
    for kind in ADAPTER_KINDS:
        llm = KangarooForCausalLM.from_pretrained("tiny-py", kind)
        rules = {
            "autoregressive": llm.draft_config(draft="off"),
            kind: llm.draft_config(adaptive=False),
            f"{kind}, adaptive": llm.draft_config(),
        }
        for name, draft in rules.items():
            adapter = llm.adapter if draft.depth else None
            made[name] = Decoder(llm.model, chain_drafter(llm.model, adapter, draft), draft)
    return made


def decode(
    decoder: Decoder, prompts: list[list[int]], new_tokens: int, capacity: int
) -> tuple[list[list[int]], float]:
    """New tokens of every prompt, and tokens per second of the rounds, prefill left out."""
    batch = Batch(decoder, capacity, max(map(len, prompts)) + new_tokens)
    requests = [Request(list(prompt), new_tokens) for prompt in prompts]
    for request in requests:
        batch.add(request)
    decoding_s = 0.0
    while len(batch):
        decoding_s += sum(sum(latest.seconds) for latest in batch.step().values())
    new = [request.tokens[len(p) :] for request, p in zip(requests, prompts, strict=True)]
    return new, sum(map(len, new)) / decoding_s


def main() -> int:
    """Decode in turns, print, append."""
    given = parse()
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    contestants = decoders()
    tokenizer = KangarooForCausalLM.from_pretrained("tiny-py").tokenizer
    named = held_out_prompts(tokenizer, given.prompts, 80)
    prompts = [ids[: 20 + 60 * n // len(named)] for n, ids in enumerate(named.values())]
    alone, _ = decode(contestants["autoregressive"], prompts, given.new_tokens, 1)
    taken: dict[tuple[str, int], list[float]] = {}
    same, started = True, perf_counter()
    for _ in range(given.repeats):
        for name, decoder in contestants.items():
            for capacity in CAPACITIES:
                new, speed = decode(decoder, prompts, given.new_tokens, capacity)
                taken.setdefault((name, capacity), []).append(speed)
                same = same and new == alone
    rows: list[dict[str, Any]] = []
    for (name, capacity), speeds in taken.items():
        ratios = [s / one for s, one in zip(speeds, taken[name, 1], strict=True)]
        row = {"name": name, "capacity": capacity, "tokens_per_s": round(median(speeds), 1)}
        rows.append(row | {"over_one": round(median(ratios), 3)})
        print(
            f"{name:21} {capacity} at a time {median(speeds):8.0f} tokens/s {median(ratios):6.2f}"
        )
    bars = [Bar("runs with the ids of decoding alone", float(same), 1.0)]
    print("\n".join(map(str, bars)))
    record = machine(torch.device("cpu")) | {
        "benchmark": "batch_decode",
        "arguments": {k: v for k, v in vars(given).items() if not isinstance(v, Path)},
        "results": rows,
        "seconds": round(perf_counter() - started, 1),
        "bars": [bar.as_dict() for bar in bars],
    }
    append(record, given.out)
    return exit_code(bars)


if __name__ == "__main__":
    sys.exit(main())
