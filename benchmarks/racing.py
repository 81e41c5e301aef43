"""Decoders raced on the same prompts, in turns; stopping rules are tuned in front of that."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from kangaroo import KangarooForCausalLM
from kangaroo.engine.stats import Speculation
from kangaroo.evals.paired import Run, median_ratio, run_once, take_turns

CONFIDENCES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MAX_DEPTHS = (4, 6, 10)
Prompts = Mapping[str, list[int]]
Decode = Callable[[list[int]], Run]
RunsByPrompt = Sequence[Sequence[Run]]  # one list per prompt, one run per turn


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
            options = {"max_depth": depth, "confidence": confidence, "adaptive": False}
            runs[depth, confidence].append(
                run_once(llm, prompt, max_new_tokens=new_tokens, **options)
            )
    return [
        Rule(*rule, pooled(taken).compression_ratio, speed([taken])) for rule, taken in runs.items()
    ]


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


def split(prompts: Prompts, num_tuning: int) -> tuple[Prompts, Prompts]:
    """(tuning, measured), the first evenly among all."""
    names = list(prompts)
    chosen = {names[n * len(names) // num_tuning] for n in range(num_tuning)}
    tuning = {name: ids for name, ids in prompts.items() if name in chosen}
    return tuning, {name: ids for name, ids in prompts.items() if name not in chosen}


def pooled(runs: Sequence[Run]) -> Speculation:
    """What speculation did in all runs."""
    return sum((r.speculation for r in runs if r.speculation), Speculation.of([]))


def speed(runs_by_prompt: RunsByPrompt) -> float:
    """Tokens per second of decoding over all runs."""
    runs = [run for taken in runs_by_prompt for run in taken]
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


def speedup(runs: RunsByPrompt, base: RunsByPrompt) -> float:
    """The median over the prompts of the median ratio of what ran in one turn."""
    return median(median_ratio(b, r) for b, r in zip(base, runs, strict=True))


def result(name: str, own: RunsByPrompt, base: RunsByPrompt) -> dict[str, Any]:
    """One row of the table: a contestant against the one that all are compared with."""
    ratios = [median_ratio(b, r) for b, r in zip(base, own, strict=True)]
    same = [
        all(run.token_ids == b[0].token_ids for run in (*b, *r))
        for b, r in zip(base, own, strict=True)
    ]
    flat = [run for taken in own for run in taken]
    counted = [taken[0] for taken in own]
    speculation, foreign = pooled(counted), counted[0].speculation is None
    return {
        "name": name,
        "tokens_per_s": round(speed(own), 2),
        "speedup_median": round(median(ratios), 4),
        "speedup_total": round(speed(own) / speed(base), 4),
        "compression_ratio": None if foreign else round(speculation.compression_ratio, 4),
        "acceptance_rate": None if foreign else round(speculation.acceptance_rate, 4),
        "identical_prompts": sum(same),
        "num_prompts": len(same),
        "num_tokens": sum(len(run.token_ids) for run in counted),
        "prefill_ms": round(1e3 * median(run.prefill_s for run in flat), 3),
        "speedups": [round(ratio, 3) for ratio in ratios],
    }


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table."""
    print(
        f"{'':22}{'tokens/s':>10}{'median x':>10}{'total x':>9}{'CR':>7}{'accepted':>10}"
        f"{'identical':>11}{'prefill ms':>12}"
    )
    for row in rows:
        ratio, rate = row["compression_ratio"], row["acceptance_rate"]
        print(
            f"{row['name']:22}{row['tokens_per_s']:10.1f}{row['speedup_median']:10.2f}"
            f"{row['speedup_total']:9.2f}{'' if ratio is None else f'{ratio:.2f}':>7}"
            f"{f'{100 * rate:.0f} %' if rate else '':>10}"
            f"{row['identical_prompts']:>7}/{row['num_prompts']:<3}{row['prefill_ms']:12.1f}"
        )


@dataclass(frozen=True)
class Terms:
    """What all contestants have in common.

    Attributes:
        compile_modes: of torch.compile to try for transformers; none: left out.
        tuning: prompts on which options and stopping rules are chosen; none: the adapters'
            deployed rules.
    """

    threads: int
    new_tokens: int
    repeats: int
    prompts: Prompts
    tuning: Prompts
    compile_modes: tuple[str, ...] = ()

    @property
    def trial(self) -> Prompts:
        """Prompts to choose among a peer's options."""
        return self.tuning or dict(list(self.prompts.items())[:1])


@dataclass
class Field:
    """The contestants by name, and what was found out on the way.

    Attributes:
        trials: tokens per second of a peer's options, where there are several.
        chosen: the option that a peer races with.
        missing: contestants that cannot run here, and why.
    """

    contestants: dict[str, Decode] = field(default_factory=dict)
    trials: dict[str, dict[str, float]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def enter(self, name: str, options: Mapping[str, Decode], terms: Terms) -> None:
        """The fastest of a peer's options; `missing` has the words of those that fail."""
        first, able, failed = next(iter(terms.trial.values())), {}, []
        for option, decode in options.items():
            try:
                decode(first)
                able[option] = decode
            except Exception as error:  # others' code may fail as it likes
                failed.append(f"{option}: {type(error).__name__}: {error}".splitlines()[0])
        if failed:
            self.missing[name] = "; ".join(failed)
        if not able:
            return
        best = next(iter(able))
        if len(able) > 1:
            runs = race(able, terms.trial, terms.repeats)
            speeds = {option: round(speed(taken), 1) for option, taken in runs.items()}
            # By the ratios within a turn: what else the machine does must not choose.
            base = runs[best]
            self.trials[name], best = speeds, max(able, key=lambda o: speedup(runs[o], base))
            print(f"{name}: {best}, of {speeds} tokens/s")
        self.contestants[name], self.chosen[name] = able[best], best
