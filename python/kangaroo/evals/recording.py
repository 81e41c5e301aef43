"""Decoding that keeps the logits which every token was chosen from: to compare runs bit by bit."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kangaroo.config import DraftConfig
from kangaroo.draft.base import Drafter
from kangaroo.engine.decode import Decoder, Round
from kangaroo.engine.state import DecodeState, PastKeyValues, Request
from kangaroo.models.llama import Llama
from kangaroo.sampling.sampler import Sampler


@dataclass(frozen=True)
class Recording:
    """What a decoder made of a prompt.

    Attributes:
        logits: [num_tokens, V], what each of `tokens` was chosen from.
        state: as the last round left it, where that is kept.
    """

    rounds: list[Round]
    logits: Tensor
    state: DecodeState | None = None

    @property
    def tokens(self) -> list[int]:
        """New tokens."""
        return [token for round_ in self.rounds for token in round_.tokens]

    @property
    def num_drafted(self) -> int:
        return sum(round_.num_drafted for round_ in self.rounds)

    @property
    def num_accepted(self) -> int:
        return sum(round_.num_accepted for round_ in self.rounds)


def record(decoder: Decoder, request: Request) -> Recording:
    """At least one token, by a decoder that keeps logits. They are here once, not in rounds too."""
    rounds, logits = list[Round](), list[Tensor]()
    for round_ in decoder.generate(request):
        assert round_.logits is not None, "the decoder keeps logits"
        logits.append(round_.logits)
        rounds.append(replace(round_, logits=None))
    return Recording(rounds, torch.cat(logits))


class RecordingDecoder(Decoder):
    """Keeps the logits and the state of a run."""

    def __init__(
        self,
        model: Llama,
        drafter: Drafter,
        config: DraftConfig,
        sampler: Sampler | None = None,
    ):
        super().__init__(model, drafter, config, keep_logits=True)
        self._sampler = sampler

    def prefill(self, request: Request, past: PastKeyValues | None = None) -> DecodeState:
        """The state is kept."""
        self._state = super().prefill(request, past)
        return self._state

    def run(
        self, prompt: Sequence[int], max_new_tokens: int, eos_ids: Set[int] = frozenset()
    ) -> Recording:
        """Decode at least one token."""
        request = Request(list(prompt), max_new_tokens, eos_ids, sampler=self._sampler)
        return replace(record(self, request), state=self._state)
