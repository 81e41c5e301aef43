"""SlotCache: rows by slot; what is committed stays, the rest is forgotten by moving a length."""

from __future__ import annotations

import pytest
import torch

from kangaroo.cache import REACH, SlotCache, Slots, Texts
from kangaroo.engine.state import Request
from kangaroo_kernels.tree_attention import KV_CHUNK

LIKE = torch.zeros(1)


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
    cache = SlotCache((2, 3, 2), 5, 8, LIKE.to(dtype))
    assert cache.rows.dtype == dtype
    assert not cache.rows.any()
    assert (cache.slots.committed, cache.num_nodes) == ([0, 0, 0], 0)
    assert cache.slots.cache_seqlens.dtype == torch.int32
    assert cache.slots.cache_seqlens.tolist() == [0, 0, 0]


def test_a_layer_is_a_view_of_its_keys_and_values() -> None:
    """Layer i is rows 2 i and 2 i + 1; nothing else changes when it is written."""
    cache = SlotCache((6, 1, 2), 5, 8, LIKE)
    for layer in range(3):
        k, v = cache.layer(layer)
        k.fill_(10 * layer + 1)
        v.fill_(10 * layer + 2)
    assert cache.rows.amax((1, 2, 3, 4)).tolist() == [1, 2, 11, 12, 21, 22]
    assert cache.rows.amin((1, 2, 3, 4)).tolist() == [1, 2, 11, 12, 21, 22]


def test_chain_stands_behind_the_live_slots() -> None:
    """Slot, position and node: all see history, nodes of this round are seen from behind."""
    cache = SlotCache((2, 2, 1), 10, 8, LIKE)
    cache.commit([5, 3], num_nodes=2)
    nodes = cache.chain(3)
    assert nodes.positions.tolist() == [[7, 8, 9], [5, 6, 7]]
    assert nodes.positions.is_contiguous()
    assert nodes.cache_seqlens.tolist() == [5, 3]
    assert nodes.first_node == 2
    assert nodes.ancestors is None
    assert (cache.slots.committed, cache.num_nodes) == ([5, 3], 2), "chain only looks"


def test_commit_moves_the_lengths_together() -> None:
    """Forward over accepted nodes, back over rejected ones; on host and device alike."""
    cache = SlotCache((2, 1, 1), 10, 8, LIKE)
    rows = torch.randn_like(cache.rows)
    cache.rows.copy_(rows)
    on_device = cache.slots.cache_seqlens
    for live, kept in [(3, 3), (9, 4), (5, 5), (6, 0)]:
        cache.num_nodes = live
        cache.commit([kept])
        assert (cache.slots.committed, cache.num_nodes) == ([kept], 0)
        assert on_device.tolist() == [kept]
    assert cache.slots.cache_seqlens is on_device, "launched kernels hold its address"
    assert torch.equal(cache.rows, rows), "a commit moves no bytes"


def test_chain_follows_a_commit_without_being_cut_again() -> None:
    """NodeBatch holds the device's length itself: kernels read what holds when they run."""
    cache = SlotCache((2, 1, 1), 10, 8, LIKE)
    nodes = cache.chain(1)
    cache.commit([6])
    assert nodes.cache_seqlens.tolist() == [6]
    assert nodes.positions.tolist() == [[6]]


def test_fewer_sequences_than_there_is_room_for() -> None:
    """The first rows are those there are; each plane of them is contiguous."""
    cache = SlotCache((4, 3, 2), 10, 8, LIKE)
    cache.commit([5, 2])
    assert cache.rows.shape == (4, 2, 2, KV_CHUNK, 8)
    assert all(plane.is_contiguous() for plane in cache.rows)
    assert cache.rows.data_ptr() == cache.storage.data_ptr()
    assert cache.chain(2).positions.tolist() == [[5, 6], [2, 3]]
    cache.commit([5, 2, 9])
    assert cache.rows is cache.storage
    assert cache.chain(1).positions.tolist() == [[5], [2], [9]]


def test_caches_that_share_their_slots() -> None:
    slots = Slots(2, torch.device("cpu"))
    first, second = (SlotCache((2, 2, 1), 10, 8, LIKE, slots) for _ in range(2))
    first.commit([4, 1])
    assert second.chain(1).positions.tolist() == [[4], [1]]


def test_the_furthest_chain() -> None:
    cache = SlotCache((2, 1, 1), REACH, 8, LIKE)
    assert cache.chain(REACH).positions.tolist() == [list(range(REACH))]


def test_a_chain_beyond_the_positions_at_hand() -> None:
    cache = SlotCache((2, 2, 1), 2 * REACH, 8, LIKE)
    cache.commit([5, 3], num_nodes=2)
    nodes = cache.chain(REACH - 1)
    assert nodes.positions.dtype == torch.int32
    assert nodes.positions.tolist() == [list(range(n + 2, n + 1 + REACH)) for n in (5, 3)]
    assert nodes.committed == nodes.cache_seqlens.tolist() == [5, 3]


def test_a_copied_sequence() -> None:
    """Its live slots and nothing else."""
    source, cache = (SlotCache((2, 3, 1), 10, 8, LIKE) for _ in range(2))
    source.storage.normal_()
    cache.copy(2, source, 1, 4)
    assert torch.equal(cache.storage[:, 2, :, :4], source.storage[:, 1, :, :4])
    assert not cache.storage[:, :2].any()
    assert not cache.storage[:, 2, :, 4:].any()


def test_memory_without_rows() -> None:
    """A drafter without an adapter has a cache of no rows, which keeps its slots all the same."""
    cache = SlotCache((0, 1, 1), 70, 1, LIKE)
    assert cache.num_slots == 2 * KV_CHUNK
    assert cache.rows.numel() == 0


def test_texts_follow_their_sequences() -> None:
    """What the device has not written is brought; what it has is left to it."""
    texts = Texts(2, 9, torch.device("cpu"))
    a, b = Request([1, 2], 5), Request([3], 5)
    texts.follow([a, b])
    texts.rows[:, 2:] = 7  # by rounds of the device
    a.tokens += [8, 9]
    texts.follow([a])
    assert texts.rows[0].tolist() == [1, 2, 8, 9, 7, 7, 7, 7, 7]
    texts.rows[:, 0] = 7
    a.tokens += [4]
    texts.follow([a])
    assert texts.rows[0].tolist() == [7, 2, 8, 9, 4, 7, 7, 7, 7]
    texts.follow([b, a])
    assert texts.rows[:, :5].tolist() == [[3, 2, 8, 9, 4], [1, 2, 8, 9, 4]]
