"""Decoding that keeps the logits which every token was chosen from: to compare runs bit by bit."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from kangaroo.draft.tree import DraftTree
from kangaroo.engine.decode import Decoder, Round
from kangaroo.engine.state import DecodeState
from kangaroo_kernels.verify_tree import Verdict


@dataclass(frozen=True)
class Recording:
    """What a decoder made of a prompt.

    Attributes:
        logits: [num_tokens, V], what each of `tokens` was chosen from.
        state: as the last round left it.
    """

    rounds: list[Round]
    logits: Tensor
    state: DecodeState

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


class RecordingDecoder(Decoder):
    """Keeps the logits and the state of a run."""

    def judge(self, state: DecodeState, tree: DraftTree, logits: Tensor) -> Verdict:
        verdict = super().judge(state, tree, logits)
        # A copy: the decoder may write the next round's logits to the same place.
        self._logits = logits[0, verdict.path[0, : int(verdict.path_len)]]
        self._state = state
        return verdict

    def run(
        self, prompt: Sequence[int], max_new_tokens: int, eos_ids: Set[int] = frozenset()
    ) -> Recording:
        """Decode at least one token; node i of the accepted path chose the round's token i."""
        rounds, logits = [], []
        for round_ in self.generate(prompt, max_new_tokens, eos_ids):
            rounds.append(round_)
            logits.append(self._logits[: len(round_.tokens)])
        return Recording(rounds, torch.cat(logits), self._state)
