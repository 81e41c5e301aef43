"""L1 on real text: the logits behind every token, speculation on against off, bit by bit."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.bars import Bar
from kangaroo import KangarooForCausalLM
from kangaroo.evals.bits import Tally, plain, recorded, served

# Options of drafting: short and bold, as deployed, long, nearly never stopping early, and copies in
# front of chains and trees.
RULES: tuple[Mapping[str, Any], ...] = (
    {"max_depth": 2, "confidence": 0.0},
    {"max_depth": 6, "confidence": 0.4},
    {"max_depth": 10, "confidence": 0.2},
    {"max_depth": 15, "confidence": 0.0},
    {"lookup": 2},
    {"draft": "tree", "lookup": 2},
)
TOKENS_PER_PROMPT = 256


def bars(tally: Tally, wanted: int) -> list[Bar]:
    """All tokens that were asked for, and no bit that differs."""
    return [
        Bar("tokens compared, speculation on against off", tally.num_tokens, wanted),
        Bar("token ids that differ", tally.differing_tokens, 0, at_least=False),
        Bar("rows of logits that choose another token", tally.strange_rows, 0, at_least=False),
        Bar("bits of logits that differ", tally.differing_bits, 0, at_least=False),
    ]


def plan(num_prompts: int, num_settings: int, wanted: int, room: int) -> tuple[int, int]:
    """Prompts, and new tokens per prompt, for `wanted` tokens over all settings: as many prompts as
    there are before the texts get longer, up to `room` tokens.
    """
    prompts = min(num_prompts, math.ceil(wanted / (num_settings * TOKENS_PER_PROMPT)))
    new_tokens = max(TOKENS_PER_PROMPT, math.ceil(wanted / (num_settings * prompts)))
    return prompts, min(room, new_tokens)


def compare(
    llms: Mapping[str, KangarooForCausalLM],
    prompts: Iterable[Sequence[int]],
    new_tokens: int,
    rules: Sequence[Mapping[str, Any]] = RULES,
) -> Tally:
    """Every adapter by every rule against one plain run of each prompt."""
    tally, prompts, model = Tally(), list(prompts), next(iter(llms.values())).model
    bases = [plain(model, prompt, new_tokens) for prompt in prompts]
    tally.num_plain_tokens = sum(len(base.tokens) for base in bases)
    settings = [(llm, options) for llm in llms.values() for options in rules]
    for place, (llm, options) in enumerate(settings, 1):
        rule = llm.draft_config(**options, adaptive=False)
        decoder = served(llm.model, llm.adapter, rule)
        for prompt, base in zip(prompts, bases, strict=True):
            tally.add(recorded(decoder, prompt, new_tokens), base)
        print(f"\rbits: {place} of {len(settings)} rules", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return tally
