"""Steps of drafting where no host decides between them: by the kernels that have them, else op by
op.
"""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.shallow import exit_rows
from kangaroo.engine.state import DecodeState
from kangaroo.models.adapter import Adapter, BareExit
from kangaroo.models.llama import Llama
from kangaroo_kernels.adapter_weights import DrafterWeights
from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.draft_step import DraftStep, Ranking
from kangaroo_kernels.exit_states import ExitStates
from kangaroo_kernels.nodes import NodeBatch


class DeviceDrafter(KangarooDrafter):
    """What drafters of chains and of trees share where nothing is read back."""

    @cached_property
    def steps(self) -> DraftStep:
        """What the kernels make of a step."""
        return draft_step(self)

    def enter(self, state: DecodeState, tokens: Tensor, nodes: NodeBatch) -> ExitStates:
        """Nodes of `tokens` [B, N] through layers [0, E); their states are in `state`, too."""
        out = exit_rows(state, nodes.first_node, tokens)
        return self.steps.enter(tokens, state.shallow_kv.rows, nodes, out)


def draft_step(drafter: KangarooDrafter) -> DraftStep:
    """The fastest that the model's kernels allow; all have the same bits."""
    model, adapter, exit_layer = drafter.model, drafter.adapter, drafter.config.exit_layer
    fused: DraftStep | None = None
    if adapter is not None and not isinstance(adapter, BareExit):
        fused = model.kernels.draft_step(model.fused, weights_of(drafter, adapter))
    return fused or StepOpByOp(model, adapter, drafter.head, exit_layer)


def weights_of(drafter: KangarooDrafter, adapter: Adapter) -> DrafterWeights:
    """Of `drafter`, whose adapter that is."""
    return DrafterWeights(
        drafter.config.exit_layer,
        drafter.model.weights.embed,
        adapter.step_weights(),
        drafter.head,
        adapter.norm,
        adapter.config.rms_norm_eps,
    )


class StepOpByOp:
    """See DraftStep; without an adapter nodes can enter, and no more."""

    def __init__(self, model: Llama, adapter: Adapter | None, head: DraftHead, exit_layer: int):
        self.model, self.adapter, self.head, self.exit_layer = model, adapter, head, exit_layer

    def enter(self, tokens: Tensor, kv: Tensor, nodes: NodeBatch, out: Tensor) -> ExitStates:
        h, whole = self.model.embed(tokens), out.is_contiguous()
        h = self.model.through(h, 0, self.exit_layer, kv, nodes, out if whole else None)
        if not whole:
            out.copy_(h)
        return ExitStates(h)

    def top1(self, states: ExitStates, kv: Tensor, nodes: NodeBatch, chain: DraftChain) -> None:
        self.model.kernels.top1_confidence(*self._in_front(states, kv, nodes), chain=chain)

    def topk(self, states: ExitStates, kv: Tensor, nodes: NodeBatch, k: int) -> Ranking:
        return self.model.kernels.topk_confidence(*self._in_front(states, kv, nodes), k)

    def logits(self, states: ExitStates, kv: Tensor, nodes: NodeBatch) -> Tensor:
        return self.model.kernels.draft_logits(*self._in_front(states, kv, nodes))

    def _in_front(
        self, states: ExitStates, kv: Tensor, nodes: NodeBatch
    ) -> tuple[Tensor, DraftHead, Tensor, float]:
        """What an op of the head takes."""
        adapter, model = self.adapter, self.model
        assert adapter is not None, "there are steps only where something drafts"
        h = adapter.through(states.h, kv, nodes, model.rope, model.kernels)
        return h, self.head, adapter.norm, adapter.config.rms_norm_eps
