"""adapter_refresh: the adapter's rows of verified slots, from exit and last states, in place."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.adapter_weights import RefreshWeights
from kangaroo_kernels.nodes import NodeBatch


class AdapterRefresh(Protocol):
    def __call__(
        self,
        states: tuple[Tensor, Tensor],
        weights: RefreshWeights,
        k_cache: Tensor,
        v_cache: Tensor,
        nodes: NodeBatch,
        rope: Tensor,
        *,
        eps: float,
    ) -> None:
        """[k; v] = W_deep [rms_norm(h); rms_norm(h_deep)], k rotated, written to the nodes' slots.

        A row's bits do not depend on how many are written.

        Args:
            states:  h and h_deep, each [B, N, C]: exit states, and last states in front of the
                target's final norm.
            k_cache: [B, H_kv, S, D], mutated: row `cache_seqlens[b] + first_node + i` of node i.
                v_cache likewise.
            nodes:   where the N rows stand; `ancestors` is not read.
            rope:    [2, P, D / 2] float32, cosines and sines by position.
            eps:     of both norms.
        """
        ...
