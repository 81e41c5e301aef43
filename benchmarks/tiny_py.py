"""Races tiny-py on held-out Python: autoregressive, transformers' generate, and both adapter kinds.

`python benchmarks/tiny_py.py` tunes each adapter's stopping rule on some held-out files of the
standard library and measures on others, everyone in turns on every prompt. Speed is that of
decoding, prefill apart. Prints a table and appends one JSON line; the exit code is 1 if ids differ.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks.provenance import ROOT, installed, machine
from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS
from kangaroo.engine.stats import Speculation
from kangaroo.evals.paired import Run, median_ratio, run_once, take_turns
from kangaroo.evals.prompts import held_out_prompts

CONFIDENCES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MAX_DEPTHS = (4, 6, 10)
AUTOREGRESSIVE, PEER = "autoregressive", "transformers"
Prompts = Mapping[str, list[int]]
Decode = Callable[[list[int]], Run]


class FirstToken(BaseStreamer):
    """Notes when the first new token is there."""

    def __init__(self) -> None:
        self.num_puts, self.at_s = 0, 0.0

    def put(self, value: Tensor) -> None:
        """The first put is the prompt."""
        self.num_puts += 1
        if self.num_puts == 2:
            self.at_s = perf_counter()

    def end(self) -> None:
        """Nothing to close."""


class Transformers:
    """transformers' own greedy decoding of the same folder, float32, eager, SDPA attention."""

    def __init__(self, path: Path, new_tokens: int):
        self.model = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()
        self.new_tokens = new_tokens

    @torch.inference_mode()
    def __call__(self, prompt: list[int]) -> Run:
        """Decode; the first token, which the prefill makes, is charged like a later one."""
        ids, first = torch.tensor([prompt]), FirstToken()
        options = {"max_new_tokens": self.new_tokens, "do_sample": False, "use_cache": True}
        started = perf_counter()
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), streamer=first, **options
        )
        stopped = perf_counter()
        new = out[0, len(prompt) :].tolist()
        decode_s = (stopped - first.at_s) * len(new) / max(len(new) - 1, 1)
        return Run(new, stopped - started - decode_s, decode_s)


@dataclass(frozen=True)
class Rule:
    """A stopping rule, and what decoding with it did on the tuning prompts."""

    max_depth: int
    confidence: float
    compression_ratio: float
    tokens_per_s: float


def sweep(llm: KangarooForCausalLM, prompts: Prompts, new_tokens: int) -> list[Rule]:
    """Every stopping rule on all prompts, rules in turns on each prompt."""
    grid = [(depth, confidence) for depth in MAX_DEPTHS for confidence in CONFIDENCES]
    runs: dict[tuple[int, float], list[Run]] = {rule: [] for rule in grid}
    for prompt in prompts.values():
        for depth, confidence in grid:
            options = {"max_depth": depth, "confidence": confidence}
            runs[depth, confidence].append(
                run_once(llm, prompt, max_new_tokens=new_tokens, **options)
            )
    return [
        Rule(*rule, pooled(taken).compression_ratio, speed([taken])) for rule, taken in runs.items()
    ]


def pooled(runs: Sequence[Run]) -> Speculation:
    """What speculation did in all runs."""
    return sum((r.speculation for r in runs if r.speculation), Speculation.of([]))


def speed(runs_by_turn: Sequence[Sequence[Run]]) -> float:
    """Tokens per second of decoding over all runs."""
    runs = [run for turn in runs_by_turn for run in turn]
    return sum(len(run.token_ids) for run in runs) / sum(run.decode_s for run in runs)


def race(
    contestants: Mapping[str, Decode], prompts: Prompts, repeats: int
) -> dict[str, list[list[Run]]]:
    """Runs of every contestant: one list per prompt, one run per turn."""
    runs: dict[str, list[list[Run]]] = {name: [] for name in contestants}
    first = next(iter(prompts.values()))
    for decode in contestants.values():
        decode(first)  # warm-up
    for place, prompt in enumerate(prompts.values(), 1):
        bound = {
            name: lambda decode=decode, prompt=prompt: decode(prompt)
            for name, decode in contestants.items()
        }
        for name, taken in take_turns(bound, repeats).items():
            runs[name].append(taken)
        print(f"\r{place} of {len(prompts)} prompts", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return runs


def result(name: str, runs: Mapping[str, list[list[Run]]]) -> dict[str, Any]:
    """One row of the table: a contestant against our autoregressive loop."""
    own, base = runs[name], runs[AUTOREGRESSIVE]
    ratios = [median_ratio(b, r) for b, r in zip(base, own, strict=True)]
    same = [
        all(run.token_ids == b[0].token_ids for run in (*b, *r))
        for b, r in zip(base, own, strict=True)
    ]
    flat = [run for taken in own for run in taken]
    counted = [taken[0] for taken in own]
    speculation = pooled(counted)
    return {
        "name": name,
        "tokens_per_s": round(speed(own), 2),
        "speedup_median": round(median(ratios), 4),
        "speedup_total": round(speed(own) / speed(base), 4),
        "compression_ratio": round(speculation.compression_ratio, 4) if name != PEER else None,
        "acceptance_rate": round(speculation.acceptance_rate, 4) if name != PEER else None,
        "identical_prompts": sum(same),
        "num_prompts": len(same),
        "num_tokens": sum(len(run.token_ids) for run in counted),
        "prefill_ms": round(1e3 * median(run.prefill_s for run in flat), 3),
        "speedups": [round(ratio, 3) for ratio in ratios],
    }


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table."""
    print(
        f"{'':16}{'tokens/s':>10}{'median x':>10}{'total x':>9}{'CR':>7}{'accepted':>10}"
        f"{'identical':>11}{'prefill ms':>12}"
    )
    for row in rows:
        ratio, rate = row["compression_ratio"], row["acceptance_rate"]
        print(
            f"{row['name']:16}{row['tokens_per_s']:10.1f}{row['speedup_median']:10.2f}"
            f"{row['speedup_total']:9.2f}{'' if ratio is None else f'{ratio:.2f}':>7}"
            f"{f'{100 * rate:.0f} %' if rate else '':>10}"
            f"{row['identical_prompts']:>7}/{row['num_prompts']:<3}{row['prefill_ms']:12.1f}"
        )


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


def split(prompts: Prompts, num_tuning: int) -> tuple[Prompts, Prompts]:
    """(tuning, measured), the first evenly among all."""
    names = list(prompts)
    chosen = {names[n * len(names) // num_tuning] for n in range(num_tuning)}
    tuning = {name: ids for name, ids in prompts.items() if name in chosen}
    return tuning, {name: ids for name, ids in prompts.items() if name not in chosen}


def tune(
    llms: Mapping[str, KangarooForCausalLM], prompts: Prompts, new_tokens: int
) -> dict[str, list[Rule]]:
    """All rules of each adapter, the fastest first."""
    rules = {}
    for kind, llm in llms.items():
        run_once(llm, next(iter(prompts.values())), max_new_tokens=new_tokens)  # warm-up
        rules[kind] = sorted(sweep(llm, prompts, new_tokens), key=lambda r: -r.tokens_per_s)
        for rule in rules[kind][:5]:
            print(
                f"{kind:12} max_depth {rule.max_depth:2} confidence {rule.confidence:.1f}: "
                f"{rule.tokens_per_s:7.1f} tokens/s, CR {rule.compression_ratio:.2f}"
            )
    return rules


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
        options = {"max_depth": max_depth, "confidence": confidence}
        return lambda ids: run_once(llms[kind], ids, max_new_tokens=given.new_tokens, **options)

    contestants: dict[str, Decode] = {
        AUTOREGRESSIVE: decode_with(ADAPTER_KINDS[0], 0, 0.0),
        PEER: Transformers(some.path, given.new_tokens),
    }
    for kind, (best, *_) in rules.items():
        contestants[kind] = decode_with(kind, best.max_depth, best.confidence)
    runs = race(contestants, measured, given.repeats)
    rows = [result(name, runs) for name in contestants]
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
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    return int(any(row["identical_prompts"] < row["num_prompts"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
