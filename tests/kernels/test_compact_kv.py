"""compact_kv: every implementation against a copy row by row; nothing else is touched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kangaroo_kernels import testing
from kangaroo_kernels.compact_kv import CompactKV
from tests.kernels import laws

UNREAD = 2**40  # in path entries from path_len on, which are not read
A_H_W = [(4, 2, 16), (1, 1, 40), (2, 3, 1), (6, 1, 65)]  # layers and K/V, heads, width


def make_caches(batch: int, num_slots: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Caches of different shapes and capacities."""
    return [
        torch.randn(a, batch, h, num_slots + extra, w).to(dtype)
        for extra, (a, h, w) in enumerate(A_H_W)
    ]


def pack(paths: list[list[int]], num_nodes: int) -> tuple[Tensor, Tensor]:
    """path [B, N] and path_len [B]."""
    padded = [path + [UNREAD] * (num_nodes - len(path)) for path in paths]
    lengths = torch.tensor([len(path) for path in paths], dtype=torch.int32)
    return torch.tensor(padded), lengths


def compacted(cache: Tensor, paths: list[list[int]], cache_seqlens: list[int]) -> Tensor:
    """A copy of the cache with each kept row copied on its own, from the cache as it was."""
    out = cache.clone()
    for b, (path, committed) in enumerate(zip(paths, cache_seqlens, strict=True)):
        for j, node in enumerate(path):
            out[:, b, :, committed + j] = cache[:, b, :, committed + node]
    return out


def check(
    compact_kv: CompactKV, caches: list[Tensor], paths: list[list[int]], cache_seqlens: list[int]
) -> None:
    expected = [compacted(cache, paths, cache_seqlens) for cache in caches]
    path, path_len = pack(paths, num_nodes=max(map(len, paths)) + 2)
    compact_kv(caches, path, path_len, torch.tensor(cache_seqlens, dtype=torch.int32))
    for cache, right in zip(caches, expected, strict=True):
        testing.assert_same_bits(cache, right)


@pytest.mark.parametrize(
    "paths",
    [[[0], [0]], [[0, 1, 2, 3], [0]], [[0, 5], [0, 1, 7, 8]], [[0, 2, 4, 6, 8], [0, 3, 4, 5]]],
    ids=str,
)
def test_paths(compact_kv: CompactKV, dtype: torch.dtype, paths: list[list[int]]) -> None:
    check(compact_kv, make_caches(2, 30, dtype), paths, [11, 0])


@given(data=st.data())
@settings(max_examples=50)
@pytest.mark.thorough
def test_random_paths(compact_kv: CompactKV, data: st.DataObject) -> None:
    batch, num_nodes = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 20))
    paths = [
        [0, *sorted(data.draw(st.sets(st.integers(1, num_nodes), max_size=num_nodes)))]
        for _ in range(batch)
    ]
    seqlens = [data.draw(st.integers(0, 40)) for _ in range(batch)]
    num_slots = max(seqlens) + num_nodes + 1
    check(compact_kv, make_caches(batch, num_slots), paths, seqlens)


def test_the_last_slot_may_be_kept(compact_kv: CompactKV) -> None:
    cache = torch.randn(2, 1, 3, 64, 40)
    check(compact_kv, [cache], [[0, 3]], [60])


def test_a_chain_moves_nothing(compact_kv: CompactKV) -> None:
    caches = make_caches(1, 64)
    before = [cache.clone() for cache in caches]
    check(compact_kv, caches, [[0, 1, 2, 3, 4]], [17])
    for cache, original in zip(caches, before, strict=True):
        testing.assert_same_bits(cache, original)


def test_the_first_sequences_of_larger_caches(compact_kv: CompactKV) -> None:
    """Planes stand further apart than they are large; rows of other sequences stay."""
    whole = make_caches(5, 64)
    caches = [cache[:, :2] for cache in whole]
    others = [cache[:, 2:].clone() for cache in whole]
    check(compact_kv, caches, [[0, 2, 3], [0, 4]], [11, 40])
    for cache, original in zip(whole, others, strict=True):
        testing.assert_same_bits(cache[:, 2:].contiguous(), original)


def test_planes_that_are_not_contiguous(fast_compact_kv: CompactKV) -> None:
    whole = torch.randn(4, 5, 3, 64, 16)
    with pytest.raises(ValueError, match="cache: expected contiguous"):
        check(fast_compact_kv, [whole[:, :2, :1]], [[0, 2], [0, 4]], [11, 40])


def test_no_caches(compact_kv: CompactKV) -> None:
    check(compact_kv, [], [[0, 2]], [5])


@pytest.mark.thorough
def test_thread_invariance(compact_kv: CompactKV) -> None:
    cache = torch.randn(32, 2, 3, 64, 64)
    path, path_len = pack([[0, 2, 5], [0, 1, 9]], num_nodes=5)

    def run() -> Tensor:
        copy = cache.clone()
        compact_kv([copy], path, path_len, torch.tensor([50, 3], dtype=torch.int32))
        return copy

    laws.check_thread_invariance(run)


def good_inputs() -> dict[str, Any]:
    path, path_len = pack([[0, 2], [0, 3]], num_nodes=4)
    seqlens = torch.tensor([5, 6], dtype=torch.int32)
    return {
        "caches": [torch.randn(2, 2, 3, 10, 8)],
        "path": path,
        "path_len": path_len,
        "cache_seqlens": seqlens,
    }


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("caches", [torch.zeros(2, 3, 3, 10, 8)]),  # another batch
        ("caches", [torch.zeros(2, 2, 3, 8, 10).mT]),  # not contiguous
        ("caches", [torch.zeros(2, 3, 10, 8)]),
        ("path", torch.zeros(2, 4, dtype=torch.int32)),
        ("path", torch.tensor([[0, 2, 3, 4], [0, 4, 5, 6]])),  # 6 + 4 is slot 10 of 10
        ("path", torch.tensor([[0, 2, 3, 4], [0, -1, 5, 6]])),
        ("path_len", torch.tensor([2, 5], dtype=torch.int32)),
        ("path_len", torch.tensor([2, 2])),
        ("cache_seqlens", torch.tensor([5, 9], dtype=torch.int32)),
        ("cache_seqlens", torch.tensor([5, -4], dtype=torch.int32)),
        ("cache_seqlens", torch.tensor([5, 6])),
        ("cache_seqlens", torch.tensor([5], dtype=torch.int32)),
    ],
)
def test_bad_inputs(fast_compact_kv: CompactKV, name: str, bad: Any) -> None:
    if name in ("path", "path_len", "cache_seqlens"):
        laws.needs_values_on_the_host()
    says = {"caches": "caches?", "cache_seqlens": "cache_seqlens|path"}.get(name, name)
    laws.check_refusal(fast_compact_kv, good_inputs(), name, bad, says=says)
