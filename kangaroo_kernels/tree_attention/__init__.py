"""tree_attention: every node attends to the committed prefix and to its own ancestors."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.nodes import NodeBatch

# Keys are summed in chunks that start at absolute multiples of this many slots, combined in order.
KV_CHUNK = 64


class TreeAttention(Protocol):
    def __call__(
        self, q: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch, scale: float
    ) -> Tensor:
        """softmax(scale q k^T) v over the visible slots, softmax in float32.

        The prefix is never masked. A row's bits depend on its own visible slots alone: neither on
        the other nodes nor on what the rest of the cache holds. They are summed in path order, the
        j-th ancestor as if it stood in slot `cache_seqlens + j`: a node of a tree has the bits of
        the chain that leads to it, and of the next root once that chain is committed. `library`
        promises nothing of bits.

        Args:
            q:       [B, N, H_q, D], RoPE applied; H_q a multiple of H_kv.
            k_cache: [B, H_kv, S, D], S a multiple of KV_CHUNK.
            v_cache: [B, H_kv, S, D]
            nodes:   where the N nodes stand; their own keys and values are in the cache already.
            scale:   softmax scale, usually 1 / sqrt(D).
        Returns:
            [B, N, H_q, D], q.dtype.
        """
        ...
