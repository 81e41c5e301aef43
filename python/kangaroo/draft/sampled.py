"""Kangaroo's drafter for sampling: tokens are drawn, and what they were drawn from is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.adapter import Adapter


class SampledDrafter(KangarooDrafter):
    """Draws the chains of sequences that are sampled from the adapter's distribution, shaped as
    the target's is.

    Nothing is drafted behind a token whose row was not sure enough; the token itself is kept.
    Whether a position gets a draft may depend on the tokens in front of it, drawn ones as well:
    they are verified before it is. Dropping a token for what it turned out to be would leave the
    others of its row too often.
    """

    def _next_tokens(
        self, adapter: Adapter, state: DecodeState, trees: list[DraftTree], growing: list[int]
    ) -> tuple[Tensor, Tensor]:
        samplers = [request.sampler for request in state.requests]
        if not any(sampler is not None and sampler.do_sample for sampler in samplers):
            return super()._next_tokens(adapter, state, trees, growing)
        logits = self._logits(adapter, state)
        tokens = logits.argmax(-1, keepdim=True)
        confidences = logits.double().softmax(-1).amax(-1, keepdim=True)
        for b in growing:
            sampler, tree = samplers[b], trees[b]
            if sampler is not None and sampler.do_sample:
                ids = state.requests[b].tokens + tree.tokens[1:]
                token, row = sampler.propose(ids, logits[b : b + 1])
                tree.drawn_from[len(tree) - 1] = row
                tokens[b], confidences[b] = int(token), float(row.max())
        return tokens, confidences

    def _logits(self, adapter: Adapter, state: DecodeState) -> Tensor:
        """The adapter's logits [B, V] float32 behind the newest nodes."""
        h, head = self._adapt(adapter, state), self.model.weights.lm_head
        out = h.new_empty(len(h), 1, len(head), dtype=torch.float32)
        eps = adapter.config.rms_norm_eps
        return self.model.kernels.linear(h, head, norm_weight=adapter.norm, eps=eps, out=out)[:, 0]
