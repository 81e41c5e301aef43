"""Kangaroo's drafter where the kernels draft a whole chain in one call."""

from __future__ import annotations

import torch

from kangaroo.config import DraftConfig
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.steps import weights_of
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.adapter import Adapter, BareExit
from kangaroo.models.llama import Llama
from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.draft_tokens import DraftTokens


def chain_drafter(
    model: Llama, adapter: Adapter | None, config: DraftConfig, *, head: DraftHead | None = None
) -> KangarooDrafter:
    """The fastest drafter of chains that the model's kernels allow; all draft the same bits."""
    drafter = KangarooDrafter(model, adapter, config, head=head)
    if adapter is None or isinstance(adapter, BareExit):
        return drafter
    fused = model.kernels.draft_tokens(model.fused, weights_of(drafter, adapter))
    return WholeChainDrafter(model, adapter, config, fused, head=head) if fused else drafter


class WholeChainDrafter(KangarooDrafter):
    """Drafts a chain by one call of `draft_tokens`."""

    def __init__(
        self,
        model: Llama,
        adapter: Adapter,
        config: DraftConfig,
        fused: DraftTokens,
        *,
        head: DraftHead | None = None,
    ):
        super().__init__(model, adapter, config, head=head)
        self.fused = fused

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        """The chains of :class:`KangarooDrafter`; those of several sequences step by step."""
        if len(max_depths) > 1 or max_depths == [0]:
            return super().draft(state, max_depths)
        self._write_up(state, drafting=True)
        shallow, own, lag = state.shallow_kv, state.adapter_kv, state.lags[0]
        tokens = torch.empty(1, 1 + max_depths[0], dtype=torch.int64)
        tokens[0, 0] = state.requests[0].tokens[-1]
        h = state.hidden(-lag, tokens.shape[1])
        nodes, unseen = shallow.chain(tokens.shape[1]), own.chain(h.shape[1])
        rule = self.config.confidence
        count = self.fused(tokens, h, (shallow.rows, own.rows), (nodes, unseen), rule)
        shallow.num_nodes = count
        own.num_nodes = count - 1 + lag  # the last token has not gone through the adapter
        tree = DraftTree.chain(tokens[0, :count].tolist())
        tree.num_passes = count - 1
        return [tree]
