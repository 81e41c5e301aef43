"""Caches of more than 2^31 elements: a sequence behind that line is like any other. On a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo_kernels import Backend, Target, testing
from kangaroo_kernels.kernel_set import load_impl
from kangaroo_kernels.testing import Heads, chain_nodes

pytestmark = pytest.mark.gpu

HEADS, SMALL, LARGE = Heads(2, 1, 128), 64, 2**24 + 64  # slots; the second sequence starts behind
NUM_NODES, COMMITTED = 3, 20


def op(name: str) -> Callable[..., Any]:
    return load_impl(name, Backend.TRITON, Target(torch.device("cuda"), torch.bfloat16, 128))


def caches(num_slots: int) -> list[Tensor]:
    """Keys and values of two sequences; the first SMALL slots of each are always the same."""
    generator = torch.Generator("cuda").manual_seed(1)
    made = []
    for _ in "kv":
        cache = torch.zeros(2, 1, num_slots, HEADS.head_dim, dtype=torch.bfloat16)
        rows = torch.randn(2, 1, SMALL, HEADS.head_dim, generator=generator)
        cache[:, :, :SMALL] = rows.bfloat16()
        made.append(cache)
    return made


def test_results_do_not_depend_on_capacity() -> None:
    """Appended, attended and compacted in a cache of 8.6 GB as in one of 64 slots."""
    nodes = chain_nodes([COMMITTED] * 2, NUM_NODES)
    q = torch.randn(2, NUM_NODES, HEADS.h_q, HEADS.head_dim).bfloat16()
    qkv = torch.randn(2, NUM_NODES, (HEADS.h_q + 2) * HEADS.head_dim).bfloat16()
    rope = testing.rope_table(SMALL, HEADS.head_dim)
    path, kept = torch.tensor([[0, 2]] * 2), torch.tensor([2, 2], dtype=torch.int32)
    results = []
    for num_slots in (SMALL, LARGE):
        k_cache, v_cache = caches(num_slots)
        assert (num_slots == LARGE) == (k_cache[1:].data_ptr() - k_cache.data_ptr() > 2**32)
        rotated = op("rope_append_kv")(qkv, k_cache, v_cache, nodes, rope)
        heads = op("tree_attention")(q, k_cache, v_cache, nodes, 0.1)
        both = [cache[None] for cache in (k_cache, v_cache)]
        op("compact_kv")(both, path, kept, nodes.cache_seqlens)
        rows = [cache[:, :, :SMALL].clone() for cache in (k_cache, v_cache)]
        results.append([rotated, heads, *rows])
    for small, large in zip(*results, strict=True):
        testing.assert_same_bits(large, small)
