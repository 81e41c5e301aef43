"""SlotCache: rows by slot; what is committed stays, the rest is forgotten by moving a length."""

from __future__ import annotations

import pytest
import torch

from kangaroo.cache import SlotCache
from kangaroo_kernels.tree_attention import KV_CHUNK

LIKE = torch.zeros(1)
POSITIONS = torch.arange(2 * KV_CHUNK, dtype=torch.int32)[None]


@pytest.mark.parametrize(
    ("asked", "given"),
    [(1, KV_CHUNK), (KV_CHUNK, KV_CHUNK), (KV_CHUNK + 1, 2 * KV_CHUNK), (0, 0)],
)
def test_capacity_is_whole_chunks(asked: int, given: int) -> None:
    """tree_attention reads whole chunks: their slots exist even where no token will stand."""
    cache = SlotCache((4, 1, 2), asked, 8, LIKE)
    assert cache.num_slots == given
    assert cache.rows.shape == (4, 1, 2, given, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_new_cache_is_empty_and_finite(dtype: torch.dtype) -> None:
    cache = SlotCache((2, 1, 2), 5, 8, LIKE.to(dtype))
    assert cache.rows.dtype == dtype
    assert not cache.rows.any()
    assert (cache.length, cache.committed) == (0, 0)
    assert cache.cache_seqlens.dtype == torch.int32
    assert cache.cache_seqlens.tolist() == [0]


def test_a_layer_is_a_view_of_its_keys_and_values() -> None:
    """Layer i is rows 2 i and 2 i + 1; nothing else changes when it is written."""
    cache = SlotCache((6, 1, 2), 5, 8, LIKE)
    for layer in range(3):
        k, v = cache.layer(layer)
        k.fill_(10 * layer + 1)
        v.fill_(10 * layer + 2)
    assert cache.rows.amax((1, 2, 3, 4)).tolist() == [1, 2, 11, 12, 21, 22]
    assert cache.rows.amin((1, 2, 3, 4)).tolist() == [1, 2, 11, 12, 21, 22]


def test_hidden_states_are_appended_behind_the_live_slots() -> None:
    cache = SlotCache((1, 1, 1), 10, 8, LIKE)
    h = torch.randn(1, 7, 8)
    cache.next_hidden(3).copy_(h[:, :3])
    cache.next_hidden(1).copy_(h[:, 3:4])
    cache.next_hidden(h.shape[1] - 4).copy_(h[:, 4:])
    assert (cache.length, cache.committed) == (7, 0)
    assert torch.equal(cache.hidden(0, 7), h)
    assert torch.equal(cache.hidden(2, 5), h[:, 2:5])
    assert not cache.hidden(7, cache.num_slots).any()


def test_rejected_hidden_states_are_overwritten() -> None:
    """What a commit forgets is written over by the next round, and what it keeps is not."""
    cache = SlotCache((1, 1, 1), 10, 8, LIKE)
    first, second = torch.randn(1, 6, 8), torch.randn(1, 2, 8)
    cache.next_hidden(first.shape[1]).copy_(first)
    cache.commit(4)
    cache.next_hidden(second.shape[1]).copy_(second)
    assert cache.length == 6
    assert torch.equal(cache.hidden(0, 4), first[:, :4])
    assert torch.equal(cache.hidden(4, 6), second)


def test_chain_stands_behind_the_live_slots() -> None:
    """Slot, position and node: all see history, nodes of this round are seen from behind."""
    cache = SlotCache((2, 1, 1), 10, 8, LIKE)
    cache.commit(5)
    cache.length += 2
    nodes = cache.chain(3, POSITIONS)
    assert nodes.positions.tolist() == [[7, 8, 9]]
    assert nodes.cache_seqlens.tolist() == [5]
    assert nodes.first_node == 2
    assert nodes.ancestors is None
    assert (cache.length, cache.committed) == (7, 5), "chain only looks"


def test_commit_moves_the_lengths_together() -> None:
    """Forward over accepted nodes, back over rejected ones; on host and device alike."""
    cache = SlotCache((2, 1, 1), 10, 8, LIKE)
    rows = torch.randn_like(cache.rows)
    cache.rows.copy_(rows)
    on_device = cache.cache_seqlens
    for live, kept in [(3, 3), (9, 4), (5, 5), (6, 0)]:
        cache.length = live
        cache.commit(kept)
        assert (cache.length, cache.committed, on_device.tolist()) == (kept, kept, [kept])
    assert cache.cache_seqlens is on_device, "launched kernels hold its address"
    assert torch.equal(cache.rows, rows), "a commit moves no bytes"


def test_chain_follows_a_commit_without_being_cut_again() -> None:
    """NodeBatch holds the device's length itself: kernels read what holds when they run."""
    cache = SlotCache((2, 1, 1), 10, 8, LIKE)
    nodes = cache.chain(1, POSITIONS)
    cache.commit(6)
    assert nodes.cache_seqlens.tolist() == [6]


def test_memory_without_rows() -> None:
    """A drafter without an adapter has a cache of no rows, which keeps its slots all the same."""
    cache = SlotCache((0, 1, 1), 70, 1, LIKE)
    assert cache.num_slots == 2 * KV_CHUNK
    assert cache.rows.numel() == 0
