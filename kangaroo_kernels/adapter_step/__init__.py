"""adapter_step: the adapter on unverified nodes (paper, section 3.2): norm, attention, residual."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.adapter_weights import StepWeights
from kangaroo_kernels.nodes import NodeBatch


class AdapterStep(Protocol):
    def __call__(
        self,
        h: Tensor,
        weights: StepWeights,
        k_cache: Tensor,
        v_cache: Tensor,
        nodes: NodeBatch,
        rope: Tensor,
        *,
        eps: float,
    ) -> Tensor:
        """h + W_o attention(W_qkv rms_norm(h)) with RoPE; keys and values are appended.

        A row's bits do not depend on the other rows or on their number.

        Args:
            h:       [B, N, C], exit states.
            k_cache: [B, H_kv, S, D], mutated: row `cache_seqlens[b] + first_node + i` of node i;
                S a multiple of KV_CHUNK. v_cache likewise.
            nodes:   where the N nodes stand.
            rope:    [2, P, D / 2] float32, cosines and sines by position.
            eps:     of the norm; the softmax scale is 1 / sqrt(D).
        Returns:
            [B, N, C], h.dtype, in front of the adapter's final norm.
        """
        ...
