"""compact_kv: in-place rollback. Keep the rows of the accepted path, contiguously; forget the
rest.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class CompactKV(Protocol):
    def __call__(
        self, caches: Sequence[Tensor], path: Tensor, path_len: Tensor, cache_seqlens: Tensor
    ) -> None:
        """cache[:, b, :, cache_seqlens[b] + j] <- cache[:, b, :, cache_seqlens[b] + path[b, j]], j
        < path_len[b].

        In place, all caches at once. A path is strictly increasing and starts at node 0, so path[j]
        >= j and a walk in order never reads a row that it has overwritten.

        Args:
            caches:        each [A, B, H, S, W], each of the A planes contiguous; A, H, S and W are
                its own (layers and K/V, heads, slots, width). Mutated.
            path:          [B, N] int64; entries from path_len on are not read.
            path_len:      [B] int32
            cache_seqlens: [B] int32, committed slots before the path.
        """
        ...
