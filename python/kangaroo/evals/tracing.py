"""What the drafter would say behind every token: what any rule for chains would do is told from it.

One token a round: below every root a chain is drafted as deep as asked for, verified whole, and
thrown away. That is the chain that decoding drafts there, whatever its rule, cut where the rule
stops; so replays are exact (train/simulate.py), drafts behind wrong ones included.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import torch
from torch import Tensor

from kangaroo.config import DraftConfig
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.decode import Decoder
from kangaroo.engine.state import DecodeState, Request
from kangaroo.models.adapter import Adapter
from kangaroo.models.llama import Llama
from kangaroo.train.simulate import Trace
from kangaroo_kernels.verify_tree import Verdict


class _Drafter(KangarooDrafter):
    """Keeps how sure it was of every token of the newest chain."""

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        self.confidences: list[float] = []
        return super().draft(state, max_depths)

    def _next_tokens(
        self, adapter: Adapter, state: DecodeState, trees: list[DraftTree], growing: list[int]
    ) -> tuple[Tensor, Tensor]:
        tokens, confidences = super()._next_tokens(adapter, state, trees, growing)
        self.confidences.append(float(confidences))
        return tokens, confidences


class _Tracer(Decoder):
    """Keeps how much of the newest chain was right, and commits nothing of it."""

    num_right = 0

    def judge(
        self, state: DecodeState, trees: list[DraftTree], logits: Tensor
    ) -> tuple[Verdict, list[list[Tensor]]]:
        whole, _ = super().judge(state, trees, logits)
        self.num_right = int(whole.path_len) - 1
        root = DraftTree.root(trees[0].tokens[0])
        return super().judge(state, [root], logits[:, :1].contiguous())


def greedy_trace(
    model: Llama,
    adapter: Adapter,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    *,
    max_depth: int,
    eos_ids: Set[int] = frozenset(),
) -> Trace:
    """Guesses up to `max_depth` behind every token of the target's greedy continuations.

    Args:
        prompts: token ids of each.
        new_tokens: of a continuation at most; `eos_ids` end it too.
    """
    config = DraftConfig(adapter.config.exit_layer, max_depth, confidence=0.0)
    drafter = _Drafter(model, adapter, config)
    tracer, lengths = _Tracer(model, drafter, config), []
    agree = torch.zeros(max_depth, len(prompts), new_tokens, dtype=torch.bool)
    confidence = torch.zeros(agree.shape)
    for n, prompt in enumerate(prompts):
        root = 0
        for root, _ in enumerate(tracer.generate(Request(list(prompt), new_tokens, eos_ids))):
            for depth, sure in enumerate(drafter.confidences):
                agree[depth, n, root + depth] = depth < tracer.num_right
                confidence[depth, n, root + depth] = sure
        lengths.append(root + 1)
    return Trace(agree, confidence, tuple(lengths))
