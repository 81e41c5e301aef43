"""An adapter that learns while it works: `python benchmarks/online.py`.

tiny-py goes on with a stream of English, documentation strings of held-out files, which its
adapters were not trained on: as they are, and with an optimiser step behind every few sequences
(`train.online`), in turns on every prompt. Prints compression ratio and speed by parts of the
stream, and what learning takes; appends one JSON line; the exit code is 1 if ids differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks.ablations.texts import docstrings
from benchmarks.bars import Bar, exit_code
from benchmarks.provenance import ROOT, append, machine
from benchmarks.racing import pooled, speedup
from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS
from kangaroo.evals.paired import Run, run_once, take_turns
from kangaroo.train.config import LossConfig
from kangaroo.train.documents import Document
from kangaroo.train.evaluate import greedy_prompts
from kangaroo.train.online import OnlineConfig, OnlineLearner
from kangaroo.train.windows import WindowSet
from kangaroo.zoo import corpus

PARTS = 4  # of the stream
WAYS = AS_IT_IS, LEARNING = "as it is", "learning"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--prompt-len", type=int, default=64, help="tokens")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--every", type=int, default=OnlineConfig.every, help="sequences a step")
    parser.add_argument("--lr", type=float, default=OnlineConfig.lr)
    parser.add_argument(
        "--hard", type=float, default=0.5, help="weight of the loss; the rest: soft"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/online.jsonl")
    return parser.parse_args()


def prompts_of(llm: KangarooForCausalLM, given: argparse.Namespace) -> list[list[int]]:
    """Pieces of the documentation strings, evenly among all."""
    own, (_, held) = llm.tokenizer, corpus.split(corpus.stdlib_files())
    rows = own(list(docstrings(held)), verbose=False)["input_ids"]
    documents = [Document(torch.tensor([*ids, own.eos_token_id])) for ids in rows]
    length, ends = given.prompt_len + 1, [own.eos_token_id]  # behind a prompt something follows
    windows = WindowSet(documents, length, own.bos_token_id, ends).evenly()
    prompts = greedy_prompts(windows, given.prompts, given.prompt_len, own.bos_token_id)
    if len(prompts) < given.prompts:
        raise ValueError(f"prompts: expected at most {len(prompts)}, got {given.prompts}")
    found: list[list[int]] = prompts.tolist()
    return found


def stream(kind: str, given: argparse.Namespace) -> tuple[dict[str, list[Run]], float]:
    """The runs of both on every prompt, and the seconds of learning."""
    llms = {way: KangarooForCausalLM.from_pretrained("tiny-py", kind) for way in WAYS}
    loss = LossConfig(soft=1 - given.hard, hard=given.hard)
    learner = OnlineLearner(llms[LEARNING], OnlineConfig(given.every, lr=given.lr, loss=loss))
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    seconds = 0.0
    for place, ids in enumerate(prompts_of(llms[AS_IT_IS], given)):
        ways = WAYS if place % 2 else WAYS[::-1]
        turns = {
            way: lambda way=way, ids=ids: run_once(llms[way], ids, max_new_tokens=given.new_tokens)
            for way in ways
        }
        for way, (run,) in take_turns(turns, 1).items():
            runs[way].append(run)
        started = perf_counter()
        learner.observe([*ids, *runs[LEARNING][-1].token_ids], len(ids))
        seconds += perf_counter() - started
    return runs, seconds


def parts(runs: Mapping[str, Sequence[Run]]) -> list[dict[str, float]]:
    """Of every part of the stream."""
    size, found = len(runs[LEARNING]) // PARTS, []
    for first in range(0, size * PARTS, size) if size else ():
        some = {way: taken[first : first + size] for way, taken in runs.items()}
        found.append(
            {way: round(pooled(taken).compression_ratio, 4) for way, taken in some.items()}
            | {"speedup": round(speedup(*([[run] for run in some[way]] for way in WAYS[::-1])), 4)}
        )
    return found


def row_of(kind: str, given: argparse.Namespace) -> dict[str, Any]:
    runs, seconds = stream(kind, given)
    decoding = sum(run.prefill_s + run.decode_s for run in runs[LEARNING])
    same = [a.token_ids == b.token_ids for a, b in zip(*runs.values(), strict=True)]
    return {
        "adapter": kind,
        "parts": parts(runs),
        "learning_s": round(seconds, 2),
        "decoding_s": round(decoding, 2),
        "identical": sum(same) / len(same),
    }


def show(row: Mapping[str, Any]) -> None:
    share = row["learning_s"] / row["decoding_s"]
    print(f"{row['adapter']}: learning takes {share:.2f} of the time of decoding")
    for number, part in enumerate(row["parts"], 1):
        ratios = ", ".join(f"{way} {part[way]:.2f}" for way in WAYS)
        print(f"  part {number}: CR {ratios}; speed {part['speedup']:.3f} of the other's")


def main() -> int:
    """Decode in turns, print, append."""
    given = parse()
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    rows = []
    for kind in ADAPTER_KINDS:
        rows.append(row_of(kind, given))
        show(rows[-1])
    bars = [Bar(f"{row['adapter']}: same ids", row["identical"], 1.0) for row in rows]
    print(*bars, sep="\n")
    record = machine(torch.device("cpu")) | {
        "benchmark": "online",
        "arguments": {k: v for k, v in vars(given).items() if not isinstance(v, Path)},
        "results": rows,
        "bars": [bar.as_dict() for bar in bars],
    }
    append(record, given.out)
    return exit_code(bars)


if __name__ == "__main__":
    sys.exit(main())
