"""Drafters that read the target's last states: kept for every slot, in planes of their own cache,
so that they join, leave, are forgotten and taken over with the slots.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import DraftConfig, HeadConfig
from kangaroo.costs import Cost, RoundCosts
from kangaroo.draft.tokens import SteppingDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.llama import Llama
from kangaroo_kernels.nodes import NodeBatch


def keep(planes: Tensor, nodes: NodeBatch, states: Tensor) -> None:
    """Write `states` [B, N, C] of chains' nodes to their slots of `planes` [P, B, H, S, W]."""
    count, _, heads, _, width = planes.shape
    rows = F.pad(states, (0, count * heads * width - states.shape[-1]))
    first, device = nodes.first_node, planes.device
    b = torch.arange(states.shape[0], device=device)[:, None]
    steps = torch.arange(first, first + states.shape[1], device=device)
    slots = nodes.cache_seqlens.long()[:, None] + steps
    planes[:, b, :, slots] = rows.unflatten(-1, (count, heads, width))


def newest(planes: Tensor, own: SlotCache, hidden_size: int) -> Tensor:
    """The state [B, 1, C] of the slot in front of the next; zeros where there is none."""
    slots = own.slots.cache_seqlens.long() + (own.num_nodes - 1)
    b = torch.arange(len(slots), device=planes.device)
    found = planes[:, b, :, slots.clamp(min=0)].flatten(1)[:, None, :hidden_size]
    return found.masked_fill((slots < 0)[:, None, None], 0.0)


class StateDrafter(SteppingDrafter):
    """Keeps the last state of every slot, and whatever rows it makes of them."""

    def __init__(self, model: Llama, config: DraftConfig, own: HeadConfig):
        super().__init__(model, config, model)
        self.own = own

    @property
    def step_parameters(self) -> int:
        """See TokenDrafter."""
        cost = Cost.of(self.model.config, self.own)
        return cost.adapter + cost.head

    def planes(self, own: SlotCache) -> Tensor:
        """Those of the states: [P, B, H, S, W]."""
        return own.rows

    def write_rows(self, own: SlotCache, nodes: NodeBatch, tokens: Tensor, states: Tensor) -> None:
        """Verified nodes have these `tokens` [B, N], and the slots in front of them these last
        `states` [B, N, C].
        """

    def prefill(self, state: DecodeState, h: Tensor, h_deep: Tensor) -> None:
        """See Drafter."""
        own, (request,) = state.adapter_kv, state.requests
        start = own.slots.committed[0]
        self._learn(own, [request.tokens[start : start + h.shape[1]]], h_deep)

    def verified(
        self,
        state: DecodeState,
        trees: list[DraftTree],
        h_deep: Tensor,
        successors: list[list[int]],
    ) -> None:
        """The rows of all nodes are written with what verification has learnt."""
        state.adapter_kv.num_nodes = 0
        self._learn(state.adapter_kv, [tree.tokens for tree in trees], h_deep)

    def predicted_costs(self, device_type: str) -> RoundCosts:
        """See TokenDrafter; every round writes rows too."""
        return RoundCosts.of(self.model.config, self.own, device_type)

    def _newest(self, own: SlotCache) -> Tensor:
        return newest(self.planes(own), own, self.model.config.hidden_size)

    def _learn(self, own: SlotCache, tokens: list[list[int]], h_deep: Tensor) -> None:
        nodes, ids = own.chain(h_deep.shape[1]), torch.tensor(tokens, device=h_deep.device)
        self.write_rows(own, nodes, ids, torch.cat([self._newest(own), h_deep[:, :-1]], 1))
        keep(self.planes(own), nodes, h_deep)
        own.num_nodes += h_deep.shape[1]
