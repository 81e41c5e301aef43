"""DecodeState: accepted paths become history in every cache, and nothing else does; sequences join
and leave.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import MAX_TREE_NODES, ModelConfig
from kangaroo.engine.state import DecodeState, Request
from kangaroo_kernels.tree_attention import KV_CHUNK
from kangaroo_kernels.verify_tree import Verdict
from tests.engines import BACKENDS, kernel_set

MODEL = ModelConfig(
    family="llama",
    vocab_size=61,
    hidden_size=24,
    intermediate_size=48,
    num_layers=5,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_seq_len=100,
    rms_norm_eps=1e-6,
    rope_inv_freq=(1.0,) * 4,
)
LIKE = torch.zeros(1)
NUM_NODES, LENS = 5, (9, 17, 1)  # slots that are committed


def make_state(lens: tuple[int, ...] = LENS, capacity: int = 3) -> DecodeState:
    """Sequences of so many committed slots, NUM_NODES nodes each; every cache holds random rows."""
    adapter_kv = SlotCache((2, capacity, MODEL.num_kv_heads), 104, MODEL.head_dim, LIKE)
    state = DecodeState.empty(MODEL, 2, adapter_kv, LIKE)
    state.requests = [Request(list(range(20, 21 + n)), 20) for n in lens]
    state.settle(list(lens), list(lens))
    for cache in state.caches:
        cache.storage.normal_()
        cache.num_nodes = NUM_NODES
    state.exit_states.normal_()
    return state


def verdict_of(*paths: list[int]) -> Verdict:
    padded = [path + [-1] * (NUM_NODES - len(path)) for path in paths]
    lengths = torch.tensor([len(path) for path in paths], dtype=torch.int32)
    return Verdict(torch.tensor(padded), lengths, torch.tensor([3] * len(paths)))


def commit(
    state: DecodeState, *paths: list[int], num_kept: int = 99, backend: str = "reference"
) -> list[list[int]]:
    """Commit `paths`, cut to `num_kept` tokens; returns the new tokens."""
    new = [[*(40 + node for node in path[1:]), 3][:num_kept] for path in paths]
    cut = [path[: len(tokens)] for path, tokens in zip(paths, new, strict=True)]
    state.commit(verdict_of(*paths), cut, new, kernel_set(backend, MODEL.head_dim))
    return new


def rows_of(state: DecodeState) -> list[Tensor]:
    return [cache.rows.clone() for cache in state.caches]


def check_rows(state: DecodeState, before: list[Tensor], paths: list[list[int]]) -> None:
    """Every cache keeps the rows of the paths, in order, behind histories that do not move."""
    for b, (root, path) in enumerate(zip(LENS, paths, strict=False)):
        slots = [*range(root), *(root + node for node in path)]
        for cache, rows in zip(state.caches, before, strict=True):
            kept = cache.rows[:, b, :, : state.prefix_lens[b]]
            assert torch.equal(kept, rows[:, b][:, :, slots])
            assert cache.slots.committed[b] == state.prefix_lens[b] == root + len(path)
            assert cache.slots.cache_seqlens[b] == state.prefix_lens[b]
            assert cache.num_nodes == 0


def test_an_empty_state() -> None:
    """The caches cover the layers once, are equally long, and hold nothing."""
    adapter_kv = SlotCache((2, 3, 2), 70, 8, LIKE)
    state = DecodeState.empty(MODEL, 2, adapter_kv, LIKE)
    assert state.requests == state.prefix_lens == state.lags == []
    assert state.shallow_kv.storage.shape == (4, 3, 2, 2 * KV_CHUNK, 8)
    assert state.deep_kv.storage.shape == (6, 3, 2, 2 * KV_CHUNK, 8)
    assert state.exit_states.shape == (3, 1 + MAX_TREE_NODES, 24)
    assert state.adapter_kv is adapter_kv
    assert all(cache.rows.shape[1] == cache.num_nodes == 0 for cache in state.caches)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", [[0, 2, 3], [0, 2], [0, 1, 4], [0, 1, 2, 4], [0, 3]])
def test_tree_paths_are_compacted(backend: str, path: list[int]) -> None:
    """Each in its own sequence, whatever the others keep."""
    state, paths = make_state(), [path, [0], [0, 1, 3]]
    before, tokens = rows_of(state), [list(request.tokens) for request in state.requests]
    new = commit(state, *paths, backend=backend)
    for b in range(3):
        assert state.requests[b].tokens == tokens[b] + new[b]
    check_rows(state, before, paths)
    assert state.lags == [0, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_fewer_sequences_than_rows(backend: str) -> None:
    """Rows without a sequence are not touched."""
    state = make_state(LENS[:2])
    before, idle = rows_of(state), [cache.storage[:, 2].clone() for cache in state.caches]
    commit(state, [0, 3], [0, 2, 4], backend=backend)
    check_rows(state, before, [[0, 3], [0, 2, 4]])
    for cache, rows in zip(state.caches, idle, strict=True):
        assert torch.equal(cache.storage[:, 2], rows)


@pytest.mark.parametrize("path", [[0], [0, 1], [0, 1, 2, 3, 4]])
def test_chains_move_no_bytes(path: list[int]) -> None:
    """Rejected rows are forgotten by a length; the bonus token is the next root, in no cache."""
    state = make_state()
    before = rows_of(state)
    commit(state, path, [0, 1], [0])
    assert [request.tokens[-1] for request in state.requests] == [3, 3, 3]
    for cache, rows in zip(state.caches, before, strict=True):
        assert torch.equal(cache.rows, rows)
    check_rows(state, before, [path, [0, 1], [0]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_kept", [1, 2, 3])
def test_a_path_cut_by_an_end_of_sequence_token(backend: str, num_kept: int) -> None:
    """The last kept token is the next root: as many slots become history as tokens are kept."""
    state = make_state(LENS[:1], capacity=1)
    before = rows_of(state)
    commit(state, [0, 2, 3, 4], num_kept=num_kept, backend=backend)
    check_rows(state, before, [[0, 2, 3, 4][:num_kept]])


def test_the_adapter_may_be_a_slot_behind() -> None:
    """The `paper` adapter has no row of a leaf: what it has not seen is not taken for seen, and the
    state that it missed is kept.
    """
    state = make_state()
    state.adapter_kv.num_nodes -= 1
    leaf = state.hidden(NUM_NODES - 1, NUM_NODES)[0]
    whole = list(range(NUM_NODES))
    commit(state, whole, [0, 1], [0])
    assert state.lags == [1, 0, 0]
    assert state.adapter_kv.slots.committed == [LENS[0] + NUM_NODES - 1, LENS[1] + 2, LENS[2] + 1]
    assert torch.equal(state.hidden(-1, 0)[0], leaf)


def test_a_sequence_joins_and_another_leaves() -> None:
    """A row keeps its tokens and live slots wherever it is moved to."""
    state, other = make_state(), make_state((30,), capacity=1)
    with pytest.raises(ValueError, match="^join: expected a free row, all 3 are taken$"):
        state.join(other.requests[0], other)
    state.forget_nodes()
    state.adapter_kv.slots.commit([9, 16, 1])
    state.exit_states[1, 0] = 7.0
    before = rows_of(state)
    gone, moved = state.requests[0], state.requests[2]
    assert state.leave(0) is gone
    assert [request.prefix_len for request in state.requests] == [1, 17]
    assert state.requests[0] is moved
    state.join(Request(list(range(31)), 5), other)
    assert state.prefix_lens == [1, 17, 30]
    assert state.lags == [0, 1, 0]
    assert (state.hidden(-1, 0)[1] == 7.0).all()
    for cache, rows, theirs in zip(state.caches, before, other.caches, strict=True):
        assert torch.equal(cache.rows[:, 0, :, :1], rows[:, 2, :, :1])
        assert torch.equal(cache.rows[:, 1, :, :16], rows[:, 1, :, :16])
        assert torch.equal(cache.rows[:, 2, :, :30], theirs.rows[:, 0, :, :30])


def test_a_sequence_that_may_grow_too_long() -> None:
    state, other = make_state(LENS[:2]), make_state((30,), capacity=1)
    fits = 128 - MAX_TREE_NODES - 31
    with pytest.raises(ValueError, match="^join: expected at most 64 tokens, got 31 and 34 more$"):
        state.join(Request(list(range(31)), fits + 1), other)
    state.join(Request(list(range(31)), fits), other)
