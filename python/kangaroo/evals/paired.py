"""Paired runs: contestants take turns, so that what slows the machine slows them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

from kangaroo.engine.detokenize import text_of
from kangaroo.engine.drafting import DRAFT_OPTIONS, PROMPT_LOOKUP
from kangaroo.engine.llm import KangarooForCausalLM
from kangaroo.engine.stats import Speculation

WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class Run:
    """One continuation of one prompt.

    Attributes:
        token_ids: new tokens.
        prefill_s: wall time in front of the first round, or of what a foreign decoder has instead.
        decode_s: wall time of what comes behind.
        speculation: of our own decoders.
    """

    token_ids: list[int]
    prefill_s: float
    decode_s: float
    speculation: Speculation | None = None

    @property
    def tokens_per_s(self) -> float:
        """New tokens over decode_s; 0 where no time was taken."""
        return len(self.token_ids) / self.decode_s if self.decode_s else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        speculation = self.speculation or Speculation.of(())
        return {
            "token_ids": self.token_ids,
            "compression_ratio": speculation.compression_ratio,
            "tokens_per_s": self.tokens_per_s,
            "prefill_s": self.prefill_s,
            "speculation": speculation.as_dict(),
        }


Contestant = Callable[[], Run]


def run_once(llm: KangarooForCausalLM, prompt: Sequence[int], **options: Any) -> Run:
    """Decode one prompt; `options` as in :meth:`KangarooForCausalLM.generate`."""
    rounds = llm.rounds(prompt, **options)
    started = perf_counter()
    for _ in rounds:
        pass
    wall_s, speculation = perf_counter() - started, rounds.speculation
    prefill_s = speculation.seconds.prefill
    return Run(rounds.tokens, prefill_s, wall_s - prefill_s, speculation)


def take_turns(contestants: Mapping[str, Contestant], repeats: int) -> dict[str, list[Run]]:
    """`repeats` runs of each; who goes first changes from turn to turn."""
    names = list(contestants)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            runs[name].append(contestants[name]())
    return runs


def median_ratio(baseline: Sequence[Run], runs: Sequence[Run]) -> float:
    """Speed-up of `runs` over `baseline`: the median of the ratios of what ran in one turn."""
    ratios = [
        run.tokens_per_s / base.tokens_per_s
        for base, run in zip(baseline, runs, strict=True)
        if base.tokens_per_s
    ]
    return median(ratios) if ratios else 0.0


@dataclass(frozen=True)
class Comparison:
    """Speculative and autoregressive decoding of one prompt, in turns.

    Attributes:
        prompt: token ids.
        speculative, autoregressive: one run of each per turn.
    """

    prompt: list[int]
    speculative: list[Run]
    autoregressive: list[Run]

    @property
    def token_ids(self) -> list[int]:
        return self.speculative[0].token_ids

    @property
    def identical(self) -> bool:
        """Every run of both gave the same ids."""
        return all(
            run.token_ids == self.token_ids for run in self.speculative + self.autoregressive
        )

    @property
    def speculation(self) -> Speculation:
        """Of the first run; counts are the same in all."""
        found = self.speculative[0].speculation
        return Speculation.of(()) if found is None else found

    @property
    def speedup(self) -> float:
        return median_ratio(self.autoregressive, self.speculative)


def as_dict(llm: KangarooForCausalLM, comparison: Comparison) -> dict[str, Any]:
    """For JSON; speeds and times are medians over the runs."""
    return speeds(comparison) | {
        "num_prompt_tokens": len(comparison.prompt),
        "token_ids": comparison.token_ids,
        "text": text_of(llm.tokenizer, comparison.prompt, comparison.token_ids),
        "ar_token_ids": comparison.autoregressive[0].token_ids,
        "speculation": comparison.speculation.as_dict(),
    }


def speeds(comparison: Comparison) -> dict[str, Any]:
    """What is compared, in numbers."""
    return {
        "identical": comparison.identical,
        "compression_ratio": comparison.speculation.compression_ratio,
        "tokens_per_s": median(run.tokens_per_s for run in comparison.speculative),
        "ar_tokens_per_s": median(run.tokens_per_s for run in comparison.autoregressive),
        "speedup": comparison.speedup,
        "prefill_s": median(run.prefill_s for run in comparison.speculative),
        "ar_prefill_s": median(run.prefill_s for run in comparison.autoregressive),
    }


def compare(
    llm: KangarooForCausalLM, prompt: Sequence[int], repeats: int, **options: Any
) -> Comparison:
    """Both ways `repeats` times in turns; call :func:`warm_up` first.

    Raises: as :meth:`KangarooForCausalLM.rounds`.
    """
    of_drafts = DRAFT_OPTIONS.union(PROMPT_LOOKUP)
    autoregressive = {k: v for k, v in options.items() if k not in of_drafts} | {"draft": "off"}
    runs = take_turns(
        {
            "speculative": lambda: run_once(llm, prompt, **options),
            "autoregressive": lambda: run_once(llm, prompt, **autoregressive),
        },
        repeats,
    )
    return Comparison(list(prompt), runs["speculative"], runs["autoregressive"])


def warm_up(llm: KangarooForCausalLM, prompt: Sequence[int], **options: Any) -> None:
    """A few tokens both ways, so that no measured run pays for first touches."""
    few = min(WARM_UP_TOKENS, options.get("max_new_tokens", WARM_UP_TOKENS))
    compare(llm, prompt, 1, **options | {"max_new_tokens": few})


def total(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """All prompts together, for JSON: `speedup` is the ratio of tokens over summed seconds."""
    speculation = sum((c.speculation for c in comparisons[1:]), comparisons[0].speculation)
    tokens_per_s = _pooled_speed([c.speculative for c in comparisons])
    ar_tokens_per_s = _pooled_speed([c.autoregressive for c in comparisons])
    return {
        "num_prompts": len(comparisons),
        "num_tokens": sum(len(c.token_ids) for c in comparisons),
        "identical": all(c.identical for c in comparisons),
        "compression_ratio": speculation.compression_ratio,
        "tokens_per_s": tokens_per_s,
        "ar_tokens_per_s": ar_tokens_per_s,
        "speedup": tokens_per_s / ar_tokens_per_s if ar_tokens_per_s else 0.0,
        "median_speedup": median(c.speedup for c in comparisons),
        "speculation": speculation.as_dict(),
    }


def _pooled_speed(runs_by_prompt: Sequence[Sequence[Run]]) -> float:
    """Tokens of one run per prompt over the sum of the prompts' median seconds."""
    num_tokens = sum(len(runs[0].token_ids) for runs in runs_by_prompt)
    seconds = sum(median(run.decode_s for run in runs) for runs in runs_by_prompt)
    return num_tokens / seconds if seconds else 0.0
