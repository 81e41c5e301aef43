"""Medusa-1 heads (arXiv 2401.10774): each says another token from one state of the target."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kangaroo.config import MedusaConfig


class MedusaHead(nn.Module):
    """One of them: x + SiLU(W x + b), and a head of its own.

    Attributes:
        weight: [C, C]; bias: [C]; head: [V, C].
    """

    def __init__(self, config: MedusaConfig):
        super().__init__()
        c = config.hidden_size
        self.weight = nn.Parameter(torch.empty(c, c))
        self.bias = nn.Parameter(torch.empty(c))
        self.head = nn.Parameter(torch.empty(config.vocab_size, c))


class Medusa(nn.Module):
    """The parameters that training makes and the engine runs.

    Attributes:
        heads: number delta - 1 says the token behind the slot that is `delta` behind the newest
            verified one, whose state behind the target's final norm it reads.
    """

    def __init__(self, config: MedusaConfig):
        super().__init__()
        self.config = config
        self.heads = nn.ModuleList(MedusaHead(config) for _ in range(config.num_draft_heads))

    def of(self, delta: int) -> MedusaHead:
        """The head of this delta, 1 to the number of heads."""
        head = self.heads[delta - 1]
        assert isinstance(head, MedusaHead)
        return head

    @torch.no_grad()
    def reset(self, target_head: Tensor) -> None:
        """Every head says what the target's own [V, C] does."""
        for delta in range(1, 1 + len(self.heads)):
            head = self.of(delta)
            head.weight.zero_()
            head.bias.zero_()
            head.head.copy_(target_head)
