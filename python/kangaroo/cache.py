"""Preallocated rows per cache slot. Rollback moves a length, and at most a few rows."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.tree_attention import KV_CHUNK


class SlotCache:
    """Rows indexed by slot: [0, committed) are history, [committed, length) the nodes of the
    current round.

    One class for everything that is written per slot, because all of it is rolled back per slot.

    Attributes:
        rows: [A, B, H, S, W]. Keys and values: A = 2 * layers (k and v of each in turn), W =
            head_dim. Hidden states: A = H = 1, W = hidden_size. S is a multiple of KV_CHUNK.
        length: live slots; batch 1 has one length.
        committed: slots that no rejection can take back.
        cache_seqlens: [B] int32 on the device, always equal to `committed`.
    """

    def __init__(self, leading: tuple[int, int, int], num_slots: int, width: int, like: Tensor):
        num_slots = -(-num_slots // KV_CHUNK) * KV_CHUNK
        self.rows = torch.zeros(*leading, num_slots, width, device=like.device, dtype=like.dtype)
        self.cache_seqlens = torch.zeros(leading[1], dtype=torch.int32, device=like.device)
        self.length = self.committed = 0

    @property
    def num_slots(self) -> int:
        return self.rows.shape[3]

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, counted from the cache's own first: two [B, H_kv, S, D]."""
        return self.rows[2 * layer], self.rows[2 * layer + 1]

    def hidden(self, start: int, stop: int) -> Tensor:
        """Hidden states of slots [start, stop): [B, stop - start, C]."""
        return self.rows[0, :, 0, start:stop]

    def next_hidden(self, num_nodes: int) -> Tensor:
        """The next slots, to be written: [B, num_nodes, C]."""
        self.length += num_nodes
        return self.hidden(self.length - num_nodes, self.length)

    def chain(self, num_nodes: int, positions: Tensor) -> NodeBatch:
        """The next `num_nodes` slots as a chain, each seeing all before it; `positions` [B, S] is
        every position.
        """
        stop = self.length + num_nodes
        return NodeBatch(
            positions[:, self.length : stop], self.cache_seqlens, self.length - self.committed
        )

    def commit(self, length: int) -> None:
        """Slots [0, length) are history now, whatever stood behind them is forgotten."""
        self.length = length
        self.settle(length)

    def settle(self, length: int) -> None:
        """Slots [0, length) are history now, and what stands behind them stays."""
        self.committed = length
        self.cache_seqlens.fill_(length)
