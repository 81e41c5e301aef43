"""Penalties that transformers has no processor for."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor


class CountPenalty(LogitsProcessor):
    """scores - frequency * count - presence * (count > 0), of new tokens, as OpenAI defines them.

    What `presence_penalty` and `frequency_penalty` of generate stand for; in front of temperature
    and what else shapes a distribution to draw from.

    Args:
        prompt_len: tokens that do not count.
        presence, frequency: in units of a logit; usually from -2 to 2.
    """

    def __init__(self, prompt_len: int, presence: float = 0.0, frequency: float = 0.0):
        self.prompt_len, self.presence, self.frequency = prompt_len, presence, frequency

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """input_ids [B, T], scores [B, V] -> [B, V]."""
        new = input_ids[:, self.prompt_len :]
        counts = torch.zeros_like(scores).scatter_add_(
            1, new, torch.ones_like(new, dtype=scores.dtype)
        )
        return scores - self.frequency * counts - self.presence * (counts > 0)
