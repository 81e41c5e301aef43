"""Are two greedy runs the same, token by token and bit by bit of the logits behind every token?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kangaroo.config import DraftConfig
from kangaroo.draft.head import drafting_head
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.engine.capture import captured_rounds
from kangaroo.engine.decode import Decoder
from kangaroo.engine.decoders import Decoders
from kangaroo.engine.state import Request
from kangaroo.evals.recording import Recording, record
from kangaroo.models.adapter_io import DraftModule
from kangaroo.models.llama import Llama

AUTOREGRESSIVE = DraftConfig(exit_layer=1, max_depth=0)


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
            self.strange_rows += int((recording.logits.argmax(dim=-1).cpu() != chosen).sum())
        self.differing_rows += int((bits > 0).sum())
        self.differing_bits += int(bits.sum())

    @property
    def is_clean(self) -> bool:
        """Something was compared, and nothing differs."""
        faults = self.differing_tokens + self.strange_rows + self.differing_bits
        return self.num_tokens > 0 and not faults


def differing_bits(a: Tensor, b: Tensor) -> Tensor:
    """How many bits of each row of two float32 [N, V] differ: [N].

    Raises:
        ValueError: of other shapes or dtypes.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"logits: {list(a.shape)} {a.dtype} beside {list(b.shape)} {b.dtype}")
    differences = a.contiguous().view(torch.int32) ^ b.contiguous().view(torch.int32)
    unequal = differences.any(dim=1)
    bits = torch.zeros(len(a), dtype=torch.int64)
    rows = differences[unequal].cpu().numpy().view(np.uint8)
    bits[unequal.cpu()] = torch.tensor([int(np.unpackbits(r).sum()) for r in rows]).long()
    return bits


def served(model: Llama, adapter: DraftModule | None, rule: DraftConfig) -> Decoder:
    """What serves greedy calls by `rule`, captured rounds where there are any, and keeps logits."""
    head, runtime = drafting_head(model.weights.lm_head), captured_rounds(model)
    return Decoders(model, adapter, head, runtime).of(rule, sampled=False, keep_logits=True)


def recorded(decoder: Decoder, prompt: Sequence[int], new_tokens: int) -> Recording:
    """One greedy run, whatever it says about an end of the sequence."""
    return record(decoder, Request(list(prompt), new_tokens))


def plain(model: Llama, prompt: Sequence[int], new_tokens: int) -> Recording:
    """The same with speculation off, round by round on the host."""
    drafter = KangarooDrafter(model, None, AUTOREGRESSIVE)
    return recorded(Decoder(model, drafter, AUTOREGRESSIVE, keep_logits=True), prompt, new_tokens)
