"""Preallocated rows per cache slot. Rollback moves a length, and at most a few rows."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Protocol

import torch
from torch import Tensor

from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.tree_attention import KV_CHUNK

REACH = 257  # slots behind the committed ones whose positions are at hand


class Slots:
    """How many slots of every sequence are history, on the host and on the device.

    Attributes:
        committed: [B] slots that no rejection can take back.
        cache_seqlens: [B] int32 on the device, always equal to `committed`.
        positions: [B, REACH] int32, of the slots behind them.
    """

    def __init__(self, batch: int, device: torch.device):
        self._cache_seqlens = torch.zeros(batch, dtype=torch.int32, device=device)
        self._positions = torch.zeros(batch, REACH, dtype=torch.int32, device=device)
        self._offsets = torch.arange(REACH, dtype=torch.int32, device=device)
        self.cache_seqlens, self.positions = self._cache_seqlens, self._positions
        self.committed = [0] * batch
        torch.add(self.positions, self._offsets, out=self.positions)

    def chain(self, first: int, num_nodes: int) -> NodeBatch:
        """Nodes [first, first + num_nodes) of chains, each seeing all before it."""
        seqlens, last = self.cache_seqlens, first + num_nodes
        if last <= REACH:
            positions = self.positions[:, first:last].contiguous()
        else:
            steps = torch.arange(first, last, dtype=torch.int32, device=seqlens.device)
            positions = seqlens[:, None] + steps
        return NodeBatch(positions, seqlens, first, committed=self.committed)

    def follow(self, lengths: list[int]) -> None:
        """The device has committed slots [0, lengths[b]) itself."""
        self.committed = lengths

    def rewind(self, lengths: list[int]) -> None:
        """As :meth:`commit`, whatever the device has committed since."""
        self.committed = []
        self.commit(lengths)

    def commit(self, lengths: list[int]) -> None:
        """Slots [0, lengths[b]) of sequence b are history now; with another number of lengths,
        at most that of the beginning, there are as many sequences.
        """
        if lengths == self.committed:  # as always where there is no adapter
            return
        self.committed = lengths
        if len(lengths) != len(self.cache_seqlens):
            self.cache_seqlens = self._cache_seqlens[: len(lengths)]
            self.positions = self._positions[: len(lengths)]
        if len(lengths) == 1:
            self.cache_seqlens.fill_(lengths[0])
        else:
            self.cache_seqlens.copy_(torch.tensor(lengths, dtype=torch.int32))
        torch.add(self.cache_seqlens[:, None], self._offsets, out=self.positions)


class SlotCache:
    """Keys and values by slot: behind the committed slots of every sequence stand those of the
    nodes of the current round, equally many in all.

    Attributes:
        storage: [A, capacity, H, S, W], A = 2 * layers (k and v of each in turn), W = head_dim. S
            is a multiple of KV_CHUNK.
        slots: how many are committed; caches that are committed together share one.
        num_nodes: of the current round, in every sequence.
    """

    def __init__(
        self,
        leading: tuple[int, int, int],
        num_slots: int,
        width: int,
        like: Tensor,
        slots: Slots | None = None,
    ):
        num_slots = -(-num_slots // KV_CHUNK) * KV_CHUNK
        self.storage = torch.zeros(*leading, num_slots, width, device=like.device, dtype=like.dtype)
        self.slots = Slots(leading[1], like.device) if slots is None else slots
        self.capacity, self.num_slots = leading[1], num_slots
        self.num_nodes = 0

    @classmethod
    def without_rows(cls, batch: int, num_slots: int, like: Tensor) -> SlotCache:
        """Slots that keep nothing."""
        return cls((0, batch, 1), num_slots, 1, like)

    @property
    def rows(self) -> Tensor:
        """[A, B, H, S, W] of the B sequences there are; each plane of A is contiguous."""
        batch = len(self.slots.committed)
        return self.storage if batch == self.capacity else self.storage[:, :batch]

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, counted from the cache's own first: two [B, H_kv, S, D]."""
        rows = self.rows
        return rows[2 * layer], rows[2 * layer + 1]

    def part(self, start: int, stop: int) -> SlotCache:
        """The same slots of layers [start, stop), counted from the cache's own first."""
        part = copy(self)
        part.storage = self.storage[2 * start : 2 * stop]
        return part

    def chain(self, num_nodes: int) -> NodeBatch:
        """The next `num_nodes` slots as a chain, each seeing all before it."""
        return self.slots.chain(self.num_nodes, num_nodes)

    def commit(self, lengths: list[int], num_nodes: int = 0) -> None:
        """Slots [0, lengths[b]) are history now, and `num_nodes` slots behind them nodes."""
        self.slots.commit(lengths)
        self.num_nodes = num_nodes

    def copy(self, row: int, source: SlotCache, source_row: int, length: int) -> None:
        """Slots [0, length) of a sequence of `source` become those of sequence `row`."""
        self.storage[:, row, :, :length] = source.storage[:, source_row, :, :length]


class Growing(Protocol):
    """A sequence that tokens are appended to."""

    tokens: list[int]


class Texts:
    """Tokens of every slot, [capacity, S] int32 `rows`. Who decodes on the device appends to them;
    the host brings what it has not seen there.
    """

    def __init__(self, capacity: int, num_slots: int, device: torch.device):
        self.rows = torch.zeros(capacity, num_slots, dtype=torch.int32, device=device)
        self._known: list[tuple[Growing, int]] = []

    def follow(self, requests: Sequence[Growing]) -> None:
        """Row b is the text of request b from here on."""
        for b, request in enumerate(requests):
            same = b < len(self._known) and self._known[b][0] is request
            start = self._known[b][1] if same else 0
            new = torch.tensor(request.tokens[start:], dtype=torch.int32)
            self.rows[b, start : start + len(new)] = new
        self._known = [(request, len(request.tokens)) for request in requests]
