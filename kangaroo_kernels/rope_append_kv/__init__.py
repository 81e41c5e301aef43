"""rope_append_kv: rotate queries and keys, and write keys and values to their slots in place."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.nodes import NodeBatch


class RopeAppendKV(Protocol):
    def __call__(
        self,
        qkv: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        nodes: NodeBatch,
        rope: Tensor,
        *,
        q_norm: Tensor | None = None,
        k_norm: Tensor | None = None,
        eps: float = 0.0,
    ) -> Tensor:
        """Split qkv into heads; RMSNorm of q and k heads where given; RoPE (halves, as Llama) on q
        and k.

        Args:
            qkv:     [B, N, (H_q + 2 H_kv) * D]; H_q may be 0 (keys and values alone).
            k_cache: [B, H_kv, S, D], mutated: row `cache_seqlens[b] + first_node + i` of node i.
            v_cache: [B, H_kv, S, D], mutated likewise.
            nodes:   where the N nodes stand; `ancestors` is not read.
            rope:    [2, P, D / 2] float32, cosines and sines by position.
            q_norm:  [D], with `eps`: per-head norm before RoPE (Qwen3). k_norm likewise.
        Returns:
            q [B, N, H_q, D], qkv.dtype.
        """
        ...
