"""What tests and benchmarks of the ops share: error budgets, exact bits, poisoned memory, inputs.

Inputs are made on torch's default device and from its global generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.tree_attention import KV_CHUNK

# Far above any real key or value, so that reading a slot which nobody wrote cannot pass unnoticed.
NOISE_STD = 100.0
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _largest(x: Tensor) -> float:
    return x.abs().max().item()


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def assert_within_budget(actual: Tensor, exact64: Tensor, low_precision: Tensor) -> None:
    """`actual` errs, at most and in RMS, no more than twice as much as the same maths in PyTorch.

    Args:
        actual: what the op returned.
        exact64: the same maths in float64.
        low_precision: the same maths by PyTorch in the dtype of `actual`.
    """
    assert exact64.dtype == torch.float64, exact64.dtype
    assert actual.shape == exact64.shape == low_precision.shape, (actual.shape, exact64.shape)
    assert actual.dtype == low_precision.dtype, (actual.dtype, low_precision.dtype)
    eps = torch.finfo(actual.dtype).eps
    # Rounding the exact result would cost half an ulp: of the typical number in the RMS. The
    # largest of a few thousand errors is luck besides: a whole ulp of the largest number.
    for name, size_of, floor in (("largest", _largest, eps), ("RMS", _rms, eps / 2)):
        error = size_of(actual.double() - exact64)
        allowed, size = size_of(low_precision.double() - exact64), size_of(exact64)
        limit = 2 * allowed + floor * size
        assert error <= limit, (
            f"{name} error {error:.3e}, more than {limit:.3e}: twice the {allowed:.3e} of PyTorch "
            f"in {actual.dtype}, and {floor * size:.1e} for the rounding"
        )


class Budget:
    """Pools several calls for one `assert_within_budget`: the largest of a few errors is luck."""

    def __init__(self) -> None:
        self._calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, actual: Tensor, exact64: Tensor, low_precision: Tensor) -> None:
        assert actual.shape == exact64.shape == low_precision.shape, (actual.shape, exact64.shape)
        self._calls.append((actual.flatten(), exact64.flatten(), low_precision.flatten()))

    def check(self) -> None:
        assert_within_budget(*(torch.cat(pool) for pool in zip(*self._calls, strict=True)))


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    """Equal shapes, dtypes and bits; unlike `torch.equal`, NaN equals itself and -0.0 is not
    0.0.
    """
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    assert actual.dtype == expected.dtype, (actual.dtype, expected.dtype)
    dtype = _BITS[actual.element_size()]
    differs = actual.contiguous().view(dtype) != expected.contiguous().view(dtype)
    assert not differs.any(), (
        f"{int(differs.sum())} of {differs.numel()} elements differ, "
        f"the first at {differs.nonzero()[0].tolist()}"
    )


def widen(*tensors: Tensor | None) -> list[Any]:
    """The floating-point tensors in float64, the others and None as they are."""
    return [t.double() if t is not None and t.is_floating_point() else t for t in tensors]


def _poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(allocate)
    def poisoned(*args: Any, **kwargs: Any) -> Tensor:
        out = allocate(*args, **kwargs)
        if out.is_floating_point():
            out.detach().fill_(math.nan)
        elif out.dtype in (torch.int16, torch.int32, torch.int64):
            out.fill_(torch.iinfo(out.dtype).min)
        return out

    return poisoned


@contextmanager
def poisoned_empty() -> Iterator[None]:
    """Uninitialised memory holds NaN (integers: the least), so what an op leaves unwritten
    shows.
    """
    owners = [(torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")]
    originals = [getattr(owner, name) for owner, name in owners]
    for (owner, name), original in zip(owners, originals, strict=True):
        setattr(owner, name, _poisoned(original))
    try:
        yield
    finally:
        for (owner, name), original in zip(owners, originals, strict=True):
            setattr(owner, name, original)


def random_weight(num_out: int, num_in: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[num_out, num_in], scaled so that unit rows give unit rows."""
    return (torch.randn(num_out, num_in) / math.sqrt(num_in)).to(dtype)


def random_norm_weight(width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[width], around one as trained norm weights are."""
    return (1 + 0.1 * torch.randn(width)).to(dtype)


def rope_table(num_positions: int, head_dim: int, theta: float = 10000.0) -> Tensor:
    """[2, num_positions, head_dim / 2] float32: cosines and sines by position."""
    powers = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    angles = torch.arange(num_positions, dtype=torch.float64)[:, None] * theta**-powers
    return torch.stack([angles.cos(), angles.sin()]).float()


def random_parents(batch: int, num_nodes: int) -> Tensor:
    """[batch, num_nodes] int64: random trees; parents come before their children, the root's is
    -1.
    """
    parents = [
        [-1, *(int(torch.randint(i, ())) for i in range(1, num_nodes))] for _ in range(batch)
    ]
    return torch.tensor(parents)


def ancestor_masks(parents: Tensor) -> Tensor:
    """parents [B, N] -> [B, N] int64: bit j of node i: j is i itself or its ancestor."""
    masks = torch.zeros_like(parents)
    for node in range(parents.shape[1]):
        parent = parents[:, node]
        inherited = masks.gather(1, parent.clamp(min=0)[:, None])[:, 0]
        own = 1 << node if node < 63 else -(1 << 63)  # bit 63 is the sign of an int64
        masks[:, node] = torch.where(parent < 0, 0, inherited) | own
    return masks


@dataclass(frozen=True)
class Heads:
    """H_q query heads of width D over H_kv heads of keys and values."""

    h_q: int
    h_kv: int
    head_dim: int


@dataclass(frozen=True)
class AttentionInputs:
    """Arguments of tree_attention.

    Attributes:
        q:       [B, N, H_q, D]
        k_cache: [B, H_kv, S, D]; slots that no node may read hold noise.
        v_cache: [B, H_kv, S, D], likewise.
        nodes:   a chain, or a random tree.
        scale:   1 / sqrt(D)
    """

    q: Tensor
    k_cache: Tensor
    v_cache: Tensor
    nodes: NodeBatch
    scale: float


def num_slots_for(used: int) -> int:
    """Capacity of a cache with `used` slots in use: whole chunks, and one more that nobody may
    read.
    """
    return (-(-used // KV_CHUNK) + 1) * KV_CHUNK


def chain_nodes(cache_seqlens: Sequence[int], num_nodes: int, first_node: int = 0) -> NodeBatch:
    """The nodes `first_node` to `first_node + num_nodes - 1` of one chain per sequence."""
    seqlens = torch.tensor(cache_seqlens, dtype=torch.int32)
    steps = torch.arange(first_node, first_node + num_nodes, dtype=torch.int32)
    return NodeBatch(seqlens[:, None] + steps, seqlens, first_node, committed=cache_seqlens)


def tree_nodes(parents: Tensor, cache_seqlens: Sequence[int], first_node: int = 0) -> NodeBatch:
    """The nodes from `first_node` on of the trees `parents` [B, T]."""
    seqlens = torch.tensor(cache_seqlens, dtype=torch.int32)
    masks = ancestor_masks(parents)
    depths = ((masks[:, :, None] >> torch.arange(64)) & 1).sum(-1, dtype=torch.int32) - 1
    positions = (seqlens[:, None] + depths)[:, first_node:].contiguous()
    masks = masks[:, first_node:].contiguous()
    return NodeBatch(positions, seqlens, first_node, masks, cache_seqlens)


def attention_inputs(
    heads: Heads,
    nodes: NodeBatch,
    dtype: torch.dtype = torch.float32,
    unused: float | None = None,
) -> AttentionInputs:
    """Random queries, keys and values for `nodes`; slots behind the last node hold noise, or
    `unused`.
    """
    batch, num_nodes = nodes.positions.shape
    used = nodes.cache_seqlens + nodes.first_node + num_nodes
    num_slots = num_slots_for(int(used.max()))
    behind = (torch.arange(num_slots) >= used[:, None])[:, None, :, None]  # [B, 1, S, 1]

    def cache() -> Tensor:
        rows = torch.randn(batch, heads.h_kv, num_slots, heads.head_dim)
        noise = NOISE_STD * torch.randn_like(rows) if unused is None else torch.tensor(unused)
        return torch.where(behind, noise, rows).to(dtype)

    q = torch.randn(batch, num_nodes, heads.h_q, heads.head_dim).to(dtype)
    return AttentionInputs(q, cache(), cache(), nodes, heads.head_dim**-0.5)
