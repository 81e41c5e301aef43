"""L1 on real text: the logits behind every token, speculation on against off, bit by bit."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.bars import Bar
from kangaroo import KangarooForCausalLM
from kangaroo.config import DraftConfig
from kangaroo.draft.whole import chain_drafter
from kangaroo.evals.recording import Recording, RecordingDecoder
from kangaroo.models.adapter import Adapter
from kangaroo.models.llama import Llama

# max_depth and confidence: short and bold, as deployed, long, and nearly never stopping early.
RULES = ((2, 0.0), (6, 0.4), (10, 0.2), (15, 0.0))
TOKENS_PER_PROMPT = 256


@dataclass
class Tally:
    """What was compared so far.

    Attributes:
        num_tokens: with speculation on; each has a row of logits.
        num_plain_tokens: with speculation off.
        differing_tokens: ids that are not those of the plain run.
        strange_rows: rows whose largest logit is not the token that was chosen: of other tokens.
        differing_rows: rows of logits with any differing bit.
    """

    num_tokens: int = 0
    num_plain_tokens: int = 0
    differing_tokens: int = 0
    strange_rows: int = 0
    differing_rows: int = 0
    differing_bits: int = 0

    def add(self, run: Recording, plain: Recording) -> None:
        """Compare a run with the plain one, token by token and row by row."""
        bits = differing_bits(run.logits, plain.logits)
        self.num_tokens += len(run.tokens)
        self.differing_tokens += sum(a != b for a, b in zip(run.tokens, plain.tokens, strict=True))
        for recording in (run, plain):
            chosen = torch.tensor(recording.tokens)
            self.strange_rows += int((recording.logits.argmax(dim=-1) != chosen).sum())
        self.differing_rows += int((bits > 0).sum())
        self.differing_bits += int(bits.sum())

    def bars(self, wanted: int) -> list[Bar]:
        """All tokens that were asked for, and no bit that differs."""
        return [
            Bar("tokens compared, speculation on against off", self.num_tokens, wanted),
            Bar("token ids that differ", self.differing_tokens, 0, at_least=False),
            Bar("rows of logits that choose another token", self.strange_rows, 0, at_least=False),
            Bar("bits of logits that differ", self.differing_bits, 0, at_least=False),
        ]


def differing_bits(a: Tensor, b: Tensor) -> Tensor:
    """How many bits of each row of two float32 [N, V] differ: [N]."""
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"logits: {list(a.shape)} {a.dtype} beside {list(b.shape)} {b.dtype}")
    differences = a.contiguous().view(torch.int32) ^ b.contiguous().view(torch.int32)
    rows = differences.numpy().view(np.uint8)
    return torch.tensor([int(np.unpackbits(row).sum()) if row.any() else 0 for row in rows])


def recorded(
    model: Llama, adapter: Adapter | None, rule: DraftConfig, prompt: Sequence[int], new_tokens: int
) -> Recording:
    """One run, whatever it says about an end of the sequence."""
    drafter = chain_drafter(model, adapter, rule)
    return RecordingDecoder(model, drafter, rule).run(prompt, new_tokens)


def plain(model: Llama, prompt: Sequence[int], new_tokens: int) -> Recording:
    """The same with speculation off."""
    return recorded(model, None, DraftConfig(exit_layer=1, max_depth=0), prompt, new_tokens)


def plan(num_prompts: int, num_settings: int, wanted: int, room: int) -> tuple[int, int]:
    """Prompts, and new tokens per prompt, for `wanted` tokens over all settings: as many prompts as
    there are before the texts get longer, up to `room` tokens.
    """
    prompts = min(num_prompts, math.ceil(wanted / (num_settings * TOKENS_PER_PROMPT)))
    new_tokens = max(TOKENS_PER_PROMPT, math.ceil(wanted / (num_settings * prompts)))
    return prompts, min(room, new_tokens)


def compare(
    llms: Mapping[str, KangarooForCausalLM], prompts: Iterable[Sequence[int]], new_tokens: int
) -> Tally:
    """Every adapter by every rule against one plain run of each prompt."""
    tally, prompts = Tally(), list(prompts)
    for place, prompt in enumerate(prompts, 1):
        base: Recording | None = None
        for llm in llms.values():
            if base is None:
                base = plain(llm.model, prompt, new_tokens)
                tally.num_plain_tokens += len(base.tokens)
            for max_depth, confidence in RULES:
                rule = llm.draft_config(max_depth=max_depth, confidence=confidence)
                tally.add(recorded(llm.model, llm.adapter, rule, prompt, new_tokens), base)
        print(f"\rbits: {place} of {len(prompts)} prompts", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return tally
