"""Inputs of adapter_step and adapter_refresh."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kangaroo_kernels import testing
from kangaroo_kernels.adapter_weights import RefreshWeights, StepWeights
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.testing import Heads

EPS = 1e-5
NUM_POSITIONS = 300
# (heads, width): the width is not always that of the heads.
SIZES = [(Heads(3, 3, 16), 48), (Heads(4, 2, 40), 37), (Heads(5, 1, 6), 130)]
# (cache_seqlens, number of nodes, first_node)
PLACES = [((0,), 1, 0), ((63,), 2, 0), ((70,), 2, 3), ((20, 3), 5, 1), ((0, 61), 18, 0)]


@dataclass(frozen=True)
class AdapterInputs:
    """Arguments of one of the two ops: `first` is h, or the three states."""

    first: Any
    weights: StepWeights | RefreshWeights
    k_cache: Tensor
    v_cache: Tensor
    nodes: NodeBatch
    rope: Tensor

    @property
    def args(self) -> tuple[Any, ...]:
        return tuple(self.__dict__.values())

    def cloned(self) -> AdapterInputs:
        """With caches of its own."""
        return replace(self, k_cache=self.k_cache.clone(), v_cache=self.v_cache.clone())

    def widened(self) -> AdapterInputs:
        """In float64."""
        first = (
            testing.widen(*self.first)
            if isinstance(self.first, tuple)
            else testing.widen(self.first)[0]
        )
        weights = type(self.weights)(*testing.widen(*self.weights))
        k_cache, v_cache, rope = testing.widen(self.k_cache, self.v_cache, self.rope)
        return AdapterInputs(first, weights, k_cache, v_cache, self.nodes, rope)


def step_inputs(
    heads: Heads, width: int, nodes: NodeBatch, dtype: torch.dtype = torch.float32
) -> AdapterInputs:
    qkv_width = (heads.h_q + 2 * heads.h_kv) * heads.head_dim
    weights = StepWeights(
        testing.random_norm_weight(width, dtype),
        testing.random_weight(qkv_width, width, dtype),
        testing.random_weight(width, heads.h_q * heads.head_dim, dtype),
    )
    [h] = _states(1, width, nodes, dtype)
    return _with_caches(h, weights, heads, nodes, dtype)


def refresh_inputs(
    heads: Heads, width: int, nodes: NodeBatch, dtype: torch.dtype = torch.float32
) -> AdapterInputs:
    weights = RefreshWeights(
        *(testing.random_norm_weight(width, dtype) for _ in range(3)),
        testing.random_weight(2 * heads.h_kv * heads.head_dim, 3 * width, dtype),
    )
    return _with_caches(tuple(_states(3, width, nodes, dtype)), weights, heads, nodes, dtype)


def _states(count: int, width: int, nodes: NodeBatch, dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(*nodes.positions.shape, width).to(dtype) for _ in range(count)]


def _with_caches(
    first: Any,
    weights: StepWeights | RefreshWeights,
    heads: Heads,
    nodes: NodeBatch,
    dtype: torch.dtype,
) -> AdapterInputs:
    caches = testing.attention_inputs(heads, nodes, dtype)
    rope = testing.rope_table(NUM_POSITIONS, heads.head_dim)
    return AdapterInputs(first, weights, caches.k_cache, caches.v_cache, nodes, rope)
