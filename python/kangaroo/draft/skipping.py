"""Draft & Verify (arXiv 2309.08168): the target drafts for itself, with some of its layers skipped.

Layers are skipped whole. A draft's keys and values are written where verification will write those
of the same nodes, in the target's own caches: the layers that are kept read the exact rows of the
prefix, and rows of the drafter's own would take (L - skipped) / L of the target's bytes once more,
and a pass over the prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from kangaroo.config import DraftConfig
from kangaroo.costs import pass_parameters
from kangaroo.draft.threshold import Threshold
from kangaroo.draft.tokens import SteppingDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from kangaroo.models.llama import Llama


class SkippingDrafter(SteppingDrafter):
    """Drafts with the layers that are not in `skipped`.

    Args:
        threshold: how the confidence behind which drafting goes on follows what is accepted, in
            every sequence for itself, beginning at `config.confidence`; None: it stays.

    Raises:
        ValueError: layers that do not exist, none is left, or trees are wanted.
    """

    def __init__(
        self,
        model: Llama,
        config: DraftConfig,
        skipped: Iterable[int],
        threshold: Threshold | None = None,
    ):
        super().__init__(model, config, model)
        num_layers, self.skipped = model.config.num_layers, frozenset(skipped)
        if not self.skipped < set(range(num_layers)):
            raise ValueError(
                f"skipped: expected some of the layers 0 to {num_layers - 1}, but not all, "
                f"got {sorted(self.skipped)}"
            )
        self.threshold = threshold
        self.runs = runs(num_layers, config.exit_layer, self.skipped)

    @property
    def step_parameters(self) -> int:
        """The layers that are left, and the head."""
        return pass_parameters(self.model.config, self.model.config.num_layers - len(self.skipped))

    def states(self, state: DecodeState, trees: list[DraftTree]) -> Tensor:
        """See SteppingDrafter."""
        exit_layer = self.config.exit_layer
        tokens = torch.tensor([tree.tokens[-1:] for tree in trees], device=state.exit_states.device)
        nodes = state.shallow_kv.slots.chain(max(map(len, trees)) - 1, 1)
        h = self.model.embed(tokens)
        for start, stop in self.runs:
            deep = start >= exit_layer
            cache, first = (state.deep_kv, exit_layer) if deep else (state.shallow_kv, 0)
            h = self.model.layers(h, start, stop, cache.part(start - first, stop - first), nodes)
        return h

    def confidences(self, state: DecodeState) -> Sequence[float]:
        """See SteppingDrafter."""
        if self.threshold is None:
            return super().confidences(state)
        return [self.threshold.now(request, self.config) for request in state.requests]

    def verified(
        self,
        state: DecodeState,
        trees: list[DraftTree],
        h_deep: Tensor,
        successors: list[list[int]],
    ) -> None:
        """The drafts are kept until it is known how many were right."""
        if self.threshold is not None:
            for request, tree in zip(state.requests, trees, strict=True):
                self.threshold.drafted(request, tree, self.config)


def runs(num_layers: int, exit_layer: int, skipped: Collection[int]) -> list[tuple[int, int]]:
    """Layers [start, stop) that follow each other, are not skipped and lie in one cache, in order;
    together all that are left.
    """
    cuts = sorted({0, exit_layer, num_layers} | {n for s in skipped for n in (s, s + 1)})
    return [(start, stop) for start, stop in pairwise(cuts) if start not in skipped]
