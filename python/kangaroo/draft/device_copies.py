"""Drafts copied out of the text where nothing is read back: what CopyingDrafter is to the host."""

from __future__ import annotations

import torch

from kangaroo.engine.state import DecodeState
from kangaroo_kernels import KernelSet
from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.verify_tree import Verdict


class DeviceCopies:
    """The texts of the sequences of one `state`, and what in them repeats itself.

    Args:
        size: tokens that must have stood in the text before.
        count: tokens of a copy.

    Attributes:
        found: [B] int32, not 0: the sequence copies in this round.
    """

    def __init__(self, state: DecodeState, kernels: KernelSet, size: int, count: int):
        slots = state.shallow_kv.slots
        shape = len(state.requests), state.shallow_kv.num_slots
        self.kernels, self.size, self.count = kernels, size, count
        self.seqlens = slots.cache_seqlens
        self.text = torch.zeros(shape, dtype=torch.int32, device=self.seqlens.device)
        self.found = torch.zeros_like(self.text[:, 0])

    def begin(self, state: DecodeState) -> None:
        """Take over what the sequences have come to."""
        for row, request in zip(self.text, state.requests, strict=True):
            row[: len(request.tokens)] = torch.tensor(request.tokens, dtype=torch.int32)

    def find(self, verdict: Verdict, trees: DraftTrees) -> None:
        """Behind a round of that verdict on these trees; see the op."""
        rule = {"size": self.size, "count": self.count}
        self.kernels.copy_draft(self.text, verdict, trees, self.seqlens, self.found, **rule)
