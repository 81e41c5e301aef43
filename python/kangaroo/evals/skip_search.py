"""Which layers to skip while drafting (arXiv 2309.08168 asks a Bayesian optimiser): tried on
prompts, by what their drafts would bring if time were weights read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kangaroo.config import DraftConfig
from kangaroo.draft.skipping import SkippingDrafter
from kangaroo.engine.decode import Decoder
from kangaroo.engine.state import Request
from kangaroo.models.llama import Llama

RANDOM_SHARE = 3  # of so many trials one is drawn, the others are a step from the best


@dataclass(frozen=True)
class Trial:
    """What drafting with `skipped` layers left out did on all prompts.

    Attributes:
        speedup: over autoregressive decoding, predicted from counts: no clock has a say.
    """

    skipped: frozenset[int]
    compression_ratio: float
    drafts_per_round: float
    speedup: float


def try_skips(
    model: Llama,
    config: DraftConfig,
    skipped: frozenset[int],
    prompts: Sequence[list[int]],
    num_new: int,
) -> Trial:
    """Decode `num_new` tokens behind each of the prompts."""
    drafter = SkippingDrafter(model, config, skipped)
    decoder, costs = Decoder(model, drafter, config), drafter.costs()
    rounds = [r for ids in prompts for r in decoder.generate(Request(list(ids), num_new))]
    num_tokens = sum(len(r.tokens) for r in rounds)
    num_drafted = sum(r.num_drafted for r in rounds)
    cost = sum(costs.of_round(1, r.num_drafted, 1 + r.num_drafted) for r in rounds)
    means = num_tokens / len(rounds), num_drafted / len(rounds)
    return Trial(skipped, *means, speedup=num_tokens / cost)


def search_skips(
    model: Llama,
    config: DraftConfig,
    prompts: Sequence[list[int]],
    num_new: int,
    num_trials: int,
    seed: int = 0,
) -> list[Trial]:
    """Up to `num_trials` sets of skipped layers, the best first: some at random, then those that
    differ from the best so far in one layer, until none of these is better. The same for a seed.

    Raises:
        ValueError: no prompts, or no trials.
    """
    if not prompts:
        raise ValueError("prompts: expected at least one, got none")
    if num_trials < 1:
        raise ValueError(f"num_trials: expected at least 1, got {num_trials}")
    rng, tried = random.Random(seed), dict[frozenset[int], Trial]()
    layers = range(model.config.num_layers)

    def attempt(skipped: frozenset[int]) -> None:
        if skipped not in tried and len(skipped) < len(layers) and len(tried) < num_trials:
            tried[skipped] = try_skips(model, config, skipped, prompts, num_new)

    attempt(frozenset({len(layers) // 2}))
    for _ in range(num_trials // RANDOM_SHARE):
        attempt(frozenset(rng.sample(layers, rng.randint(1, len(layers) - 1))))
    best, before = _best_of(tried), None
    while best != before:
        before = best
        for skipped in neighbours(best.skipped, layers, rng):
            attempt(skipped)
            if (best := _best_of(tried)) != before:
                break
    return sorted(tried.values(), key=lambda trial: -trial.speedup)


def neighbours(
    skipped: frozenset[int], layers: range, rng: random.Random
) -> Iterator[frozenset[int]]:
    """Every set that differs in one layer, in random order."""
    for layer in rng.sample(layers, len(layers)):
        yield skipped ^ {layer}


def _best_of(tried: dict[frozenset[int], Trial]) -> Trial:
    return max(tried.values(), key=lambda trial: trial.speedup)
