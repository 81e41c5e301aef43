"""Drafts copied out of the text where nothing is read back: what CopyingDrafter is to the host."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo_kernels import KernelSet
from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.verify_tree import Verdict


class DeviceCopies:
    """What repeats itself in texts that the device has.

    Args:
        text: [B, S] int32; each round's path joins it.
        seqlens: [B] int32, the roots' slots.
        size: tokens that must have stood in the text before.
        count: tokens of a copy.

    Attributes:
        found: [B] int32, not 0: the sequence copies in this round.
    """

    def __init__(self, kernels: KernelSet, text: Tensor, seqlens: Tensor, size: int, count: int):
        self.kernels, self.text, self.seqlens = kernels, text, seqlens
        self.size, self.count = size, count
        self.found = torch.zeros_like(seqlens)

    def find(self, verdict: Verdict, trees: DraftTrees) -> None:
        """Behind a round of that verdict on these trees; see the op."""
        rule = {"size": self.size, "count": self.count}
        self.kernels.copy_draft(self.text, verdict, trees, self.seqlens, self.found, **rule)
