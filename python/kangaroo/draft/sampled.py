"""Kangaroo's drafters for sampling: chains that are drawn, trees of what may well be drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo.draft.branching import BranchingDrafter, rankings
from kangaroo.draft.chains import any_sampled, drawn
from kangaroo.draft.growth import Ranking
from kangaroo.draft.head import vocabulary_first, whole_rows
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.adapter import Adapter
from kangaroo.sampling.sampler import by_kernels, draws_of


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
        if any_sampled(state):
            logits = self._logits(adapter, state)
            return drawn(self.model.kernels, state, trees, growing, logits, self.head)
        return super()._next_tokens(adapter, state, trees, growing)

    def _logits(self, adapter: Adapter, state: DecodeState) -> Tensor:
        """The adapter's logits [B, R] float32 behind the newest nodes, of the head's tokens."""
        return draft_logits(self, adapter, self._adapt(adapter, state))[:, 0]


class SampledBranchingDrafter(BranchingDrafter):
    """Trees for coupled samplers: the race of a position, run with the adapter's row, says which
    tokens the target may draw there.

    In place of its probability a token has its share of the race, which is near 1 where the numbers
    leave little doubt; `confidence` is about that of the best. On tiny-py at temperature 1 such
    trees make a fifth to a third more tokens a verify pass than trees of the most probable ones.
    """

    def _ranked(
        self, adapter: Adapter, state: DecodeState, trees: list[DraftTree], h: Tensor
    ) -> list[list[Ranking]]:
        if not any_sampled(state):
            return super()._ranked(adapter, state, trees, h)
        if all(by_kernels(request.sampler) for request in state.requests):
            return self._drawn(adapter, state, trees, h)
        rows = head_logits(self, adapter, h)
        return [self._raced(state, b, tree, rows[b]) for b, tree in enumerate(trees)]

    def _drawn(
        self, adapter: Adapter, state: DecodeState, trees: list[DraftTree], h: Tensor
    ) -> list[list[Ranking]]:
        """By kernels."""
        newest = slice(-h.shape[1], None)
        depths = torch.tensor([tree.depths[newest] for tree in trees], dtype=torch.int32)
        roots = torch.tensor(state.prefix_lens, dtype=torch.int32)[:, None]
        draws = draws_of([request.sampler for request in state.requests], h.device)
        tokens, shares = self.model.kernels.draw_tokens(
            draft_logits(self, adapter, h),
            draws,
            (roots + depths).to(h.device),
            self.num_ranked,
            token_ids=self.head.token_ids,
        )
        return rankings(tokens.clamp(min=0), shares)

    def _raced(self, state: DecodeState, b: int, tree: DraftTree, logits: Tensor) -> list[Ranking]:
        """Of sequence `b`, by the adapter's logits [N, V] of its newest nodes."""
        request = state.requests[b]
        if (sampler := request.sampler) is not None and sampler.do_sample and sampler.coupled:
            nodes = range(len(tree) - len(logits), len(tree))
            histories = [request.tokens + tree.path_tokens(node) for node in nodes]
            shares = sampler.shares(histories, logits)
        else:
            shares = logits.softmax(-1)
        best = vocabulary_first(shares, self.head).topk(self.num_ranked)
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def draft_logits(drafter: KangarooDrafter, adapter: Adapter, h: Tensor) -> Tensor:
    """The drafter's head on adapter states h [B, N, C]: [B, N, R] float32, of the head's tokens."""
    head, eps = drafter.head, adapter.config.rms_norm_eps
    return drafter.model.kernels.draft_logits(h, head, adapter.norm, eps)


def head_logits(drafter: KangarooDrafter, adapter: Adapter, h: Tensor) -> Tensor:
    """The same of all tokens: [B, N, V]."""
    return whole_rows(draft_logits(drafter, adapter, h), drafter.head)
