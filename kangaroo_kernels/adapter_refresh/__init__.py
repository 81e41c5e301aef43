"""adapter_refresh: rows of verified slots, from all that is known of them, in place."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.adapter_weights import RefreshWeights
from kangaroo_kernels.nodes import NodeBatch


class AdapterRefresh(Protocol):
    def __call__(
        self,
        states: tuple[Tensor, Tensor, Tensor],
        weights: RefreshWeights,
        k_cache: Tensor,
        v_cache: Tensor,
        nodes: NodeBatch,
        rope: Tensor,
        *,
        eps: float,
    ) -> None:
        """[k; v] = W_deep [rms_norm(h); rms_norm(h_deep); rms_norm(successor)], k rotated, written
        to the nodes' slots.

        A row's bits do not depend on how many are written.

        Args:
            states:  h, h_deep and successor, each [B, N, C]: exit states, last states in front of
                the target's final norm, and the target's embeddings of the tokens behind the slots.
            k_cache: [B, H_kv, S, D], mutated: row `cache_seqlens[b] + first_node + i` of node i.
                v_cache likewise.
            nodes:   where the N rows stand; `ancestors` is not read.
            rope:    [2, P, D / 2] float32, cosines and sines by position.
            eps:     of all norms.
        """
        ...
