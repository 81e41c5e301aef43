"""A call of generate, from what was asked for to what is returned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from kangaroo.engine.batch import decode_together
from kangaroo.engine.decode import Decoder
from kangaroo.engine.generation import Plan
from kangaroo.engine.outputs import GenerateOutput, logprobs_of, padded, stacked
from kangaroo.engine.state import PastKeyValues, Request
from kangaroo.engine.stats import Rounds
from kangaroo_kernels import UnsupportedError


@dataclass(frozen=True)
class Work:
    """A call of generate, nothing of it computed yet.

    Attributes:
        rows: the prompts as they were given, padding included.
        requests: of every sequence to return, those of the first prompt first.
        past: saves prefill; None: nothing does.
    """

    rows: list[list[int]]
    requests: list[Request]
    decoder: Decoder
    wanted: Plan
    past: PastKeyValues | None = None

    def rounds(self) -> Rounds:
        """Those of the one sequence there is.

        Raises:
            UnsupportedError: there are more.
        """
        if len(self.requests) > 1:
            raise UnsupportedError(
                "rounds: expected one sequence (one prompt, num_return_sequences=1), "
                f"got {len(self.requests)}"
            )
        return Rounds(self.decoder.generate(self.requests[0], self.past))

    def decode(self, streamer: BaseStreamer | None) -> list[Rounds]:
        """Every sequence to its end."""
        if streamer is not None:
            if len(self.requests) > 1:
                raise UnsupportedError(
                    f"streamer: expected one sequence (num_return_sequences=1), "
                    f"got {len(self.requests)}"
                )
            streamer.put(torch.tensor(self.rows))
        if len(self.requests) > 1:
            copies = self.wanted.num_return_sequences
            return decode_together(self.decoder, self.requests, copies, self.past)
        rounds = self.rounds()
        for latest in rounds:
            if streamer is not None:
                streamer.put(torch.tensor(latest.tokens))
        return [rounds]

    def output(self, sequences: list[Rounds], device: torch.device) -> Tensor | GenerateOutput:
        """What generate returns of the decoded `sequences`."""
        wanted, pad_id = self.wanted, self.wanted.pad_id or 0
        prompts = padded(self.rows, pad_id, left=True)
        new = padded([rounds.tokens for rounds in sequences], pad_id)
        ids = torch.cat([prompts.repeat_interleave(wanted.num_return_sequences, 0), new], 1)
        if not wanted.return_dict:
            return ids.to(device)
        output = GenerateOutput(sequences=ids.to(device))
        first, *others = (rounds.speculation for rounds in sequences)
        output.speculation = sum(others, start=first)
        if wanted.output_scores:
            scores = stacked([[r.scores for r in rounds.done] for rounds in sequences])
            output.scores = scores.to(device).unbind(1)
        if self.decoder.keep_logits:
            logits = stacked([[r.logits for r in rounds.done] for rounds in sequences]).to(device)
            output.logits = logits.unbind(1) if wanted.output_logits else None
            if wanted.output_logprobs:
                output.logprobs = logprobs_of(logits, new.to(device))
        return output


def past_of(value: Any, owner: object) -> PastKeyValues | None:
    """`past_key_values` as a call by `owner` was given them.

    Raises:
        ValueError: another owner's.
        UnsupportedError: transformers' own, or anything else.
    """
    if value is not None and not isinstance(value, PastKeyValues):
        raise UnsupportedError(
            f"past_key_values: expected kangaroo's own PastKeyValues, got {type(value).__name__}"
        )
    if value is not None and value.owner not in (None, owner):
        raise ValueError("past_key_values: expected those of this model, got another's")
    return value
