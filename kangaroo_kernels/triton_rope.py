"""Rotation and scatter, shared by rope_append_kv and projections that do it themselves."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.checks import require, require_slots, require_within, sizes
from kangaroo_kernels.nodes import NodeBatch


@triton.jit
def load_turn(
    rope_ptr,
    positions_ptr,
    row,  # [rows], sequence * num_nodes + node
    row_live,  # [rows]
    live,  # [rows, pairs]
    pair,  # [pairs]
    num_positions,
    D: tl.constexpr,
):
    """Cosines and sines of pairs at the positions of rows, each [rows, pairs] float32."""
    HALF: tl.constexpr = D // 2
    position = tl.load(positions_ptr + row, mask=row_live, other=0)
    position = tl.minimum(tl.maximum(position, 0), num_positions - 1)  # memory stays whole
    turn = position[:, None] * HALF + pair[None, :]
    cos = tl.load(rope_ptr + turn, mask=live, other=0.0)
    sin = tl.load(rope_ptr + num_positions * HALF + turn, mask=live, other=0.0)
    return cos, sin


@triton.jit
def place_heads(
    a,  # [rows, pairs] float32, first halves of one head
    b,  # likewise, second halves
    cos,
    sin,
    head,  # queries, then keys, then values
    row,  # [rows], sequence * num_nodes + node
    live,  # [rows, pairs]
    pair,  # [pairs]
    q_ptr,
    k_cache_ptr,
    v_cache_ptr,
    seqlens_ptr,
    first_node,
    num_nodes,
    num_slots,
    H_Q: tl.constexpr,
    H_KV: tl.constexpr,
    D: tl.constexpr,
):
    """Rotate queries and keys; queries go to q [rows, H_Q, D], keys and values to their slots."""
    HALF: tl.constexpr = D // 2
    dtype = k_cache_ptr.dtype.element_ty
    row_live = tl.max(live.to(tl.int32), axis=1) > 0
    if head < H_Q + H_KV:
        a, b = a * cos - b * sin, b * cos + a * sin
    if head < H_Q:
        place = (row.to(tl.int64) * H_Q + head)[:, None] * D + pair[None, :]
        tl.store(q_ptr + place, a.to(dtype), mask=live)
        tl.store(q_ptr + place + HALF, b.to(dtype), mask=live)
    else:
        sequence = row // num_nodes
        slot = tl.load(seqlens_ptr + sequence, mask=row_live, other=0).to(tl.int64)
        slot += first_node + row % num_nodes
        fits = live & ((slot >= 0) & (slot < num_slots))[:, None]
        cache = (sequence * H_KV + (head - H_Q) % H_KV).to(tl.int64)
        place = (cache * num_slots + slot)[:, None] * D + pair[None, :]
        if head < H_Q + H_KV:
            tl.store(k_cache_ptr + place, a.to(dtype), mask=fits)
            tl.store(k_cache_ptr + place + HALF, b.to(dtype), mask=fits)
        else:
            tl.store(v_cache_ptr + place, a.to(dtype), mask=fits)
            tl.store(v_cache_ptr + place + HALF, b.to(dtype), mask=fits)


@triton.jit
def interleaved(first, lane, D: tl.constexpr):
    """Rows of a head's projection so that neighbouring lanes are a pair of the rotation."""
    pair = first + lane // 2
    return pair + lane % 2 * (D // 2), pair < D // 2


def check_places(rope: Tensor, nodes: NodeBatch, at: tuple[int, int], k_cache: Tensor) -> None:
    """Positions [B, N] = `at` within the table, slots within the cache.

    Raises:
        ValueError: names argument, expected and got.
    """
    num_slots, head_dim = k_cache.shape[2:]
    num_positions = sizes("rope", rope, 3)[1]
    require("rope", rope, (2, num_positions, head_dim // 2), torch.float32, k_cache.device)
    require("nodes.positions", nodes.positions, at, torch.int32, k_cache.device)
    require_within("nodes.positions", nodes.positions, 0, num_positions)
    require_slots(nodes, num_slots)
