"""DecodeState.commit: the accepted path becomes history in every cache, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import ModelConfig
from kangaroo.engine.state import DecodeState
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
PREFIX_LEN, NUM_NODES = 9, 5
PROMPT = list(range(20, 20 + PREFIX_LEN + 1))  # the last is the root


def make_state() -> DecodeState:
    """PREFIX_LEN committed slots and NUM_NODES nodes; every cache holds random rows."""
    adapter_kv = SlotCache((2, 1, MODEL.num_kv_heads), 40, MODEL.head_dim, LIKE)
    state = DecodeState.empty(MODEL, 2, adapter_kv, LIKE)
    state.tokens = list(PROMPT)
    for cache in caches_of(state):
        cache.rows.copy_(torch.randn_like(cache.rows))
        cache.commit(PREFIX_LEN)
        cache.length += NUM_NODES
    return state


def caches_of(state: DecodeState) -> list[SlotCache]:
    return [state.shallow_kv, state.deep_kv, state.exit_hidden, state.adapter_kv]


def verdict_of(path: list[int], bonus: int = 3) -> Verdict:
    padded = path + [-1] * (NUM_NODES - len(path))
    return Verdict(
        torch.tensor([padded]), torch.tensor([len(path)], dtype=torch.int32), torch.tensor([bonus])
    )


def rows_of(state: DecodeState) -> list[Tensor]:
    return [cache.rows.clone() for cache in caches_of(state)]


def test_an_empty_state() -> None:
    """The caches cover the layers once, are equally long, and hold nothing."""
    adapter_kv = SlotCache((2, 1, 2), 70, 8, LIKE)
    state = DecodeState.empty(MODEL, 2, adapter_kv, LIKE)
    assert state.tokens == []
    assert state.shallow_kv.rows.shape == (4, 1, 2, 2 * KV_CHUNK, 8)
    assert state.deep_kv.rows.shape == (6, 1, 2, 2 * KV_CHUNK, 8)
    assert state.exit_hidden.rows.shape == (1, 1, 1, 2 * KV_CHUNK, 24)
    assert state.adapter_kv is adapter_kv
    assert state.positions.dtype == torch.int32
    assert state.positions.tolist() == [list(range(2 * KV_CHUNK))]
    assert all(cache.length == cache.committed == 0 for cache in caches_of(state))


def test_the_root_stands_behind_the_committed_slots() -> None:
    state = make_state()
    assert state.prefix_len == PREFIX_LEN == len(PROMPT) - 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("path", [[0, 2, 3], [0, 2], [0, 1, 4], [0, 1, 2, 4], [0, 3]])
def test_a_tree_path_is_compacted(backend: str, path: list[int]) -> None:
    """Every cache keeps the rows of the path, in order, behind a history that does not move."""
    state = make_state()
    before = rows_of(state)
    tokens = [40 + node for node in path[1:]] + [3]
    state.commit(verdict_of(path), tokens, kernel_set(backend, MODEL.head_dim))
    assert state.tokens == PROMPT + tokens
    assert state.prefix_len == PREFIX_LEN + len(path)
    slots = list(range(PREFIX_LEN)) + [PREFIX_LEN + node for node in path]
    for cache, rows in zip(caches_of(state), before, strict=True):
        assert torch.equal(cache.rows[..., : state.prefix_len, :], rows[..., slots, :])
    for cache in caches_of(state):
        assert cache.length == cache.committed == state.prefix_len
        assert cache.cache_seqlens.tolist() == [state.prefix_len]


@pytest.mark.parametrize("path", [[0], [0, 1], [0, 1, 2, 3, 4]])
def test_a_chain_moves_no_bytes(path: list[int]) -> None:
    """Rejected rows are forgotten by a length; the bonus token is the next root, in no cache."""
    state = make_state()
    before = rows_of(state)
    state.commit(verdict_of(path), [*path[1:], 3], kernel_set("reference", MODEL.head_dim))
    assert state.tokens[-1] == 3
    for cache, rows in zip(caches_of(state), before, strict=True):
        assert torch.equal(cache.rows, rows)
    for cache in caches_of(state):
        assert cache.length == cache.committed == PREFIX_LEN + len(path) == state.prefix_len


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_kept", [1, 2, 3])
def test_a_path_cut_by_an_end_of_sequence_token(backend: str, num_kept: int) -> None:
    """The last kept token is the next root: as many slots become history as tokens are kept."""
    state = make_state()
    before = rows_of(state)
    path = [0, 2, 3, 4]
    state.commit(verdict_of(path), [42, 43, 44][:num_kept], kernel_set(backend, MODEL.head_dim))
    assert state.prefix_len == PREFIX_LEN + num_kept
    slots = [PREFIX_LEN + node for node in path[:num_kept]]
    for cache, rows in zip(caches_of(state), before, strict=True):
        assert torch.equal(cache.rows[..., PREFIX_LEN : state.prefix_len, :], rows[..., slots, :])
    for cache in caches_of(state):
        assert cache.length == cache.committed == state.prefix_len


def test_the_adapter_may_be_a_slot_behind() -> None:
    """The `paper` adapter has no row of a leaf: what it has not seen is not taken for seen."""
    state = make_state()
    state.adapter_kv.length -= 1
    path = list(range(NUM_NODES))
    state.commit(verdict_of(path), [*path[1:], 3], kernel_set("reference", MODEL.head_dim))
    assert state.prefix_len == PREFIX_LEN + NUM_NODES
    assert state.adapter_kv.length == state.adapter_kv.committed == state.prefix_len - 1
