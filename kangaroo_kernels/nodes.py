"""Where the new nodes of a call stand in every sequence's cache and draft tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

MAX_TREE_NODES = 64  # ancestors are one bit each of an int64


@dataclass(frozen=True, slots=True)
class NodeBatch:
    """N new nodes per sequence. Node i of the call is node `first_node + i` of its sequence's tree.

    It is written to slot `cache_seqlens[b] + first_node + i`; every slot below `cache_seqlens[b]`
    is committed and visible to it.

    Attributes:
        positions:     [B, N] int32, RoPE indices.
        cache_seqlens: [B] int32, committed slots (FlashAttention's word).
        first_node:    tree nodes already in the cache, the same for all sequences.
        ancestors:     [B, N] int64 bit masks, bit j: tree node j is the node itself or its
            ancestor;
                       None: the tree is a chain, so node i sees every node up to itself.
        committed:     [B], what the host knows `cache_seqlens` to be; None: it does not.
    """

    positions: Tensor
    cache_seqlens: Tensor
    first_node: int = 0
    ancestors: Tensor | None = None
    committed: Sequence[int] | None = None

    def sequence(self, b: int) -> NodeBatch:
        """The nodes of sequence b alone."""
        own = slice(b, b + 1)
        ancestors = None if self.ancestors is None else self.ancestors[own]
        committed = None if self.committed is None else self.committed[own]
        positions, cache_seqlens = self.positions[own], self.cache_seqlens[own]
        return NodeBatch(positions, cache_seqlens, self.first_node, ancestors, committed)


class SlotPlaces(NamedTuple):
    """Of caches whose lengths the device keeps.

    Attributes:
        cache_seqlens: [B] int32, committed slots.
        positions:     [B, R] int32, of the slots behind them.
    """

    cache_seqlens: Tensor
    positions: Tensor
