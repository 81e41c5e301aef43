"""draft_step: a step of drafting (paper, section 3) in two calls, with no host between."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.exit_states import ExitStates
from kangaroo_kernels.nodes import NodeBatch

Ranking = tuple[Tensor, Tensor]


class DraftStep(Protocol):
    """The bits of `embedding`, `decoder_layers`, `adapter_step` and an op of the draft head in
    turn. `kv` [2 * layers, B, H_kv, S, D] is mutated as by `rope_append_kv`; `nodes` says where the
    N nodes stand.
    """

    def enter(self, tokens: Tensor, kv: Tensor, nodes: NodeBatch, out: Tensor) -> ExitStates:
        """Nodes of tokens [B, N] int64 through the embedding and the layers in front of the exit;
        their states are written to out [B, N, C], of any strides, too.
        """
        ...

    def top1(self, states: ExitStates, kv: Tensor, nodes: NodeBatch, chain: DraftChain) -> None:
        """Nodes that the adapter has not seen through the adapter, whose `kv` it is; the token
        behind the last one joins `chain`, as by `top1_confidence`. `states` need have no more than
        h, and so below.
        """
        ...

    def topk(self, states: ExitStates, kv: Tensor, nodes: NodeBatch, k: int) -> Ranking:
        """The same, and what `topk_confidence` gives behind every node."""
        ...

    def logits(self, states: ExitStates, kv: Tensor, nodes: NodeBatch) -> Tensor:
        """The same, and what `draft_logits` gives."""
        ...
