"""Kangaroo's drafter with trees (paper: top-k 10, confidence 0.4): all new nodes in one pass."""

from __future__ import annotations

from torch import Tensor

from kangaroo.config import DraftConfig
from kangaroo.draft.growth import Ranking, growth_of
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.shallow import new_nodes_through_shallow_layers
from kangaroo.draft.tree import DraftTree, pad
from kangaroo.engine.state import DecodeState
from kangaroo.models.adapter import Adapter
from kangaroo.models.llama import Llama
from kangaroo_kernels.draft_head import DraftHead


class BranchingDrafter(KangarooDrafter):
    """Drafts trees. All nodes but those of the last pass go through the adapter, so its rows end
    where that pass begins.

    Raises:
        ValueError: more tokens wanted behind a node than may be drafted.
    """

    def __init__(
        self,
        model: Llama,
        adapter: Adapter | None,
        config: DraftConfig,
        *,
        head: DraftHead | None = None,
    ):
        super().__init__(model, adapter, config, head=head)
        self.num_ranked = max(config.tree_widths, default=config.draft_top_k)
        if self.num_ranked > self.head.num_ids:
            name = "tree_widths" if config.tree_widths else "draft_top_k"
            raise ValueError(
                f"{name}: expected at most the {self.head.num_ids} tokens of the head, "
                f"got {self.num_ranked}"
            )

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        """A tree below every root. Children of a node behind which the drafter was not sure enough
        are kept; what would follow them is not drafted.

        All trees take the same passes, and in each as many nodes as the widest: the others are
        padded.
        """
        trees = self._roots(state)
        samplers = [request.sampler for request in state.requests]
        growths = [
            growth_of(tree, self.config, depth, sampled=bool(sampler and sampler.do_sample))
            for tree, depth, sampler in zip(trees, max_depths, samplers, strict=True)
        ]
        self._write_up(state, drafting=any(growth.open for growth in growths))
        self._shallow_nodes(state, trees)
        if self.adapter is not None and not any(growth.open for growth in growths):
            self._keep_up(self.adapter, state)
        while self.adapter is not None and any(growth.open for growth in growths):
            rankings = self._rankings(self.adapter, state, trees)
            for growth, ranked in zip(growths, rankings, strict=True):
                if growth.open:
                    growth.extend(ranked)
            pad(trees)
            self._shallow_nodes(state, trees)
        return trees

    def _shallow_nodes(self, state: DecodeState, trees: list[DraftTree]) -> None:
        new_nodes_through_shallow_layers(self.model, self.config.exit_layer, state, trees)

    def _rankings(
        self, adapter: Adapter, state: DecodeState, trees: list[DraftTree]
    ) -> list[list[Ranking]]:
        """Of every sequence, the tokens behind each node that the adapter has not seen."""
        return self._ranked(adapter, state, trees, self._adapt(adapter, state, trees))

    def _ranked(
        self, adapter: Adapter, state: DecodeState, trees: list[DraftTree], h: Tensor
    ) -> list[list[Ranking]]:
        """The most probable tokens behind the newest nodes, of adapter states h [B, N, C]."""
        tokens, probabilities = self.model.kernels.topk_confidence(
            h, self.head, adapter.norm, adapter.config.rms_norm_eps, self.num_ranked
        )
        return rankings(tokens, probabilities)


def rankings(tokens: Tensor, probabilities: Tensor) -> list[list[Ranking]]:
    """Of every sequence, what is behind each of its nodes; [B, N, k] each."""
    pairs = zip(tokens.tolist(), probabilities.tolist(), strict=True)
    return [list(zip(*rows, strict=True)) for rows in pairs]
