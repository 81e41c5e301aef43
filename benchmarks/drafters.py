"""Drafters of one target in one engine, on held-out Python: Kangaroo's and the others'.

`python benchmarks/drafters.py` races tiny-py with each of them, greedily, in turns on every prompt,
against the same loop that drafts nothing. On other prompts first it searches which layers Draft &
Verify skips, and how sure each drafter must be of a token to draft behind it. Where no draft model
is given, the target's first layers stand in for one: a trained one of that size would be right more
often. Prints a table and its bar, appends one JSON line; the exit code is 1 if ids differ. Times
are those of the machine as it is: see `load_1min`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks.bars import Bar, exit_code
from benchmarks.provenance import ROOT, append, machine
from benchmarks.racing import Decode, Prompts, RunsByPrompt, pooled, race, result, speed, split
from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS, DraftConfig, MedusaConfig
from kangaroo.costs import Cost, pass_parameters
from kangaroo.draft.base import Drafter
from kangaroo.draft.draft_model import ModelDrafter
from kangaroo.draft.head import drafting_head
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.lookup import LookupDrafter
from kangaroo.draft.skipping import SkippingDrafter
from kangaroo.draft.threshold import Threshold
from kangaroo.draft.tokens import TokenDrafter
from kangaroo.draft.whole import chain_drafter
from kangaroo.engine.decode import Decoder
from kangaroo.engine.drafting import kangaroo_drafter, plain_drafter
from kangaroo.engine.loading import (
    adapter_home,
    load_bound,
    load_bound_adapter,
    load_draft_model,
)
from kangaroo.engine.state import Request
from kangaroo.engine.stats import Rounds
from kangaroo.evals.paired import Run
from kangaroo.evals.prompts import held_out_prompts
from kangaroo.evals.skip_search import search_skips
from kangaroo.models.adapter import Adapter, BareExit
from kangaroo.models.llama import Llama

PLAIN, LOOKUP_DEPTH = "autoregressive", 10  # transformers' own default


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="tiny-py", help="a folder with adapters/<kind> in it")
    parser.add_argument("--draft-model", type=Path, help="a folder; default: the first layers")
    parser.add_argument("--draft-layers", type=int, default=4, help="of the target, without one")
    parser.add_argument("--medusa", type=Path, help="a folder of Medusa-1 heads of the target")
    parser.add_argument("--eagle", type=Path, help="a folder of an EAGLE-style head")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tuning-prompts", type=int, default=2)
    parser.add_argument("--prompt-len", type=int, default=80, help="tokens")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--max-depth", type=int, default=6, help="of all but lookup")
    parser.add_argument("--confidences", type=float, nargs="+", default=[0.2, 0.4, 0.6, 0.8])
    parser.add_argument("--trials", type=int, default=40, help="sets of skipped layers")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/drafters.jsonl")
    return parser.parse_args()


@dataclass(frozen=True)
class Contestant:
    """A drafter, parameters that it adds to the target's, and what one of its steps reads."""

    drafter: Drafter
    config: DraftConfig
    added: int
    step_parameters: int

    def decode(self, model: Llama, num_new: int) -> Decode:
        decoder = Decoder(model, self.drafter, self.config)

        def run(ids: list[int]) -> Run:
            rounds = Rounds(decoder.generate(Request(list(ids), num_new)))
            for _ in rounds:
                pass
            did = rounds.speculation
            return Run(rounds.tokens, did.seconds.prefill, did.seconds.decode, did)

        return run


Maker = Callable[[DraftConfig], Contestant]


def of_tokens(drafter: TokenDrafter, added: int = 0) -> Contestant:
    return Contestant(drafter, drafter.config, added, drafter.step_parameters)


def kangaroo(model: Llama, adapter: Adapter) -> Maker:
    """An adapter, whose exit layer is its own."""
    cost = Cost.of(model.config, adapter.config)
    added = sum(p.numel() for p in adapter.parameters())
    read = cost.shallow + cost.adapter + cost.head

    def make(config: DraftConfig) -> Contestant:
        config = replace(config, exit_layer=adapter.config.exit_layer)
        head = drafting_head(model.weights.lm_head)
        drafter = kangaroo_drafter(model, adapter, config, head, sampled=False, coupled=True)
        return Contestant(drafter, config, added, read)

    return make


def heads(home: Path, kind: str, llm: KangarooForCausalLM) -> Maker:
    """What folder `home` holds, no deeper than it can draft."""
    model, like = llm.model, llm.model.weights.norm
    module = load_bound(home, llm.path, like.dtype, like.device)
    if module.config.kind != kind:
        raise ValueError(f"{home}: kind: expected {kind}, got {module.config.kind}")
    own, added = module.config, sum(p.numel() for p in module.parameters())

    def make(config: DraftConfig) -> Contestant:
        if isinstance(own, MedusaConfig):
            config = replace(config, max_depth=min(config.max_depth, own.num_draft_heads))
        drafter = plain_drafter(model, module, config)
        assert isinstance(drafter, TokenDrafter)
        return of_tokens(drafter, added)

    return make


def bare_exit(model: Llama, exit_layer: int) -> Maker:
    """No adapter at this layer."""
    read = pass_parameters(model.config, exit_layer)

    def make(config: DraftConfig) -> Contestant:
        config = replace(config, exit_layer=exit_layer)
        bare = BareExit(model.config, model.weights.norm, exit_layer)
        return Contestant(chain_drafter(model, bare, config), config, 0, read)

    return make


def draft_model_of(llm: KangarooForCausalLM, given: argparse.Namespace) -> tuple[str, Llama, int]:
    """Its name, the model, and the parameters that it adds."""
    model = llm.model
    if given.draft_model is not None:
        own = load_draft_model(given.draft_model, llm.path, model)
        w = own.weights
        parts = [w.embed, *(x for y in w.layers for x in (y.qkv, y.o, y.gate_up, y.down))]
        parts += [] if own.config.tie_embeddings else [w.lm_head]
        return "draft model", own, sum(x.numel() for x in parts)
    count = given.draft_layers
    return f"first {count} layers", model.with_layers(model.weights.layers[:count]), 0


def makers(
    llm: KangarooForCausalLM, skipped: frozenset[int], given: argparse.Namespace
) -> dict[str, Maker]:
    """All drafters but lookup, which has no confidence to choose."""
    model, (name, small, added) = llm.model, draft_model_of(llm, given)
    found, exits = dict[str, Maker](), {model.config.num_layers // 2}
    for kind in ADAPTER_KINDS:
        home, like = adapter_home(given.model, kind), model.weights.norm
        assert home is not None
        adapter = load_bound_adapter(home, llm.path, like.dtype, like.device)
        found[f"Kangaroo, {kind}"] = kangaroo(model, adapter)
        exits.add(adapter.config.exit_layer)
    for exit_layer in sorted(exits):
        found[f"bare exit at {exit_layer}"] = bare_exit(model, exit_layer)
    for title, kind, home in (
        ("Medusa-1", "medusa", given.medusa),
        ("EAGLE", "eagle", given.eagle),
    ):
        if home is not None:
            found[title] = heads(home, kind, llm)
    return found | {
        "Draft & Verify": lambda config: of_tokens(SkippingDrafter(model, config, skipped)),
        "Draft & Verify, by rule": lambda config: of_tokens(
            SkippingDrafter(model, config, skipped, Threshold())
        ),
        name: lambda config: of_tokens(ModelDrafter(model, config, small), added),
    }


def fastest(
    model: Llama, make: Maker, config: DraftConfig, tuning: Prompts, given: argparse.Namespace
) -> Contestant:
    """With the confidence that is fastest on the tuning prompts, in turns."""
    able = {x: make(replace(config, confidence=x)) for x in given.confidences}
    decoders = {f"{x}": own.decode(model, given.new_tokens) for x, own in able.items()}
    runs = race(decoders, tuning, given.repeats)
    return able[max(able, key=lambda x: speed(runs[f"{x}"]))]


def row_of(
    name: str, contestant: Contestant, runs: Mapping[str, RunsByPrompt], itemsize: int
) -> dict[str, Any]:
    """What it adds and reads, what it drafts, and what that costs and brings."""
    did, plain = (pooled([run for taken in runs[who] for run in taken]) for who in (name, PLAIN))
    plain_round = plain.seconds.decode / plain.num_rounds
    return result(name, runs[name], runs[PLAIN]) | {
        "confidence": contestant.config.confidence,
        "added_parameters": contestant.added,
        "bytes_per_draft_step": contestant.step_parameters * itemsize,
        "drafts_per_round": round(did.num_drafted / did.num_rounds, 3),
        "draft_over_plain_round": round(did.seconds.draft / did.num_rounds / plain_round, 4),
    }


def show(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'':24}{'sure':>6}{'added':>9}{'KB/step':>9}{'CR':>7}{'drafts':>8}{'draft':>7}"
        f"{'speed-up':>10}"
    )
    for row in rows:
        kilobytes = row["bytes_per_draft_step"] / 1e3
        print(
            f"{row['name']:24}{row['confidence']:>6.1f}{row['added_parameters']:>9}"
            f"{kilobytes:>9.0f}{row['compression_ratio']:>7.2f}{row['drafts_per_round']:>8.2f}"
            f"{row['draft_over_plain_round']:>7.2f}{row['speedup_median']:>10.2f}"
        )


def main() -> int:
    """Search, race, print, append."""
    given = parse()
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    llm = KangarooForCausalLM.from_pretrained(given.model)
    model, count = llm.model, given.prompts + given.tuning_prompts
    prompts = held_out_prompts(llm.tokenizer, count, given.prompt_len)
    tuning, measured = split(prompts, given.tuning_prompts)
    config, off = DraftConfig(1, given.max_depth), DraftConfig(1, max_depth=0)
    trials = search_skips(model, config, list(tuning.values()), given.new_tokens, given.trials)
    print(f"of {len(trials)} sets of skipped layers the best: {trials[0]}")
    contestants = {
        PLAIN: Contestant(KangarooDrafter(model, None, off), off, 0, 0),
        "lookup": of_tokens(LookupDrafter(model, replace(config, max_depth=LOOKUP_DEPTH))),
    }
    made, best = makers(llm, trials[0].skipped, given), f"Kangaroo, {ADAPTER_KINDS[-1]}"
    for name, make in made.items():
        contestants[name] = fastest(model, make, config, tuning, given)
    own = replace(contestants[best].config, lookup=3)
    contestants[f"{best}, lookup"] = made[best](own)
    decoders = {name: own.decode(model, given.new_tokens) for name, own in contestants.items()}
    runs = race(decoders, measured, given.repeats)
    itemsize = model.weights.norm.itemsize
    rows = [row_of(name, own, runs, itemsize) for name, own in contestants.items()]
    show(rows)
    same = sum(row["identical_prompts"] for row in rows) / sum(row["num_prompts"] for row in rows)
    bars = [Bar("runs with the ids of plain decoding", same, 1.0)]
    print(*bars, sep="\n")
    record = machine(torch.device("cpu")) | {
        "benchmark": "drafters",
        "arguments": {k: v for k, v in vars(given).items() if not isinstance(v, Path)},
        "prompts": list(measured),
        "skip_trials": [vars(t) | {"skipped": sorted(t.skipped)} for t in trials],
        "results": rows,
        "bars": [bar.as_dict() for bar in bars],
    }
    append(record, given.out)
    return exit_code(bars)


if __name__ == "__main__":
    sys.exit(main())
