"""draft_tokens: a chain of drafts in one call (paper, section 3): shallow layers, adapter, head."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.nodes import NodeBatch


class DraftTokens(Protocol):
    def __call__(
        self,
        tokens: Tensor,
        exit_states: Tensor,
        kv: tuple[Tensor, Tensor],
        nodes: tuple[NodeBatch, NodeBatch],
        threshold: float,
    ) -> int:
        """The bits of `embedding`, `decoder_layers`, `adapter_step` and `top1_confidence` in turn,
        until a token is less sure than `threshold` or there are T.

        Every token of the chain goes through the layers, every one but the last through the
        adapter.

        Args:
            tokens:      [1, T] int64; the root, and behind it the drafts, written.
            exit_states: [1, A, C], A >= T: the slots that the adapter has not seen, those of the
                chain last; read, and written from the root on.
            kv:          of the layers, [2 * num_layers, 1, H_kv, S, D], and of the adapter,
                [2, 1, H_kv, S, D]; mutated as by `rope_append_kv`.
            nodes:       of the longest chain, T, and of `exit_states`, A, both chains.
        Returns:
            how many tokens the chain has, the root included.
        """
        ...
