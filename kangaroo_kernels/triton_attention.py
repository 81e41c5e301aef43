"""Flash decoding over a draft tree, shared by tree_attention and adapter_step: its splits stand at
fixed slots, and its rows have the bits of the chain that leads to them.

Slots are cut into splits at absolute places: short ones first, so that many programs share a short
prefix, longer ones behind, so that a long one leaves few partial results. A split that is committed
altogether is read once per tile of rows (nodes x heads of a group). A split that holds nodes of the
tree is walked by every node for itself, in *path order*: slot `cache_seqlens + j` stands for the
node's j-th ancestor, as it would if the path were committed, and what is no ancestor is never read.
Both ways multiply the same tiles in the same order, so a node has the same bits in a tree, in a
chain, and as the next root. Partial results are then combined in the order of the splits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels import triton_math
from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.tree_attention import KV_CHUNK
from kangaroo_kernels.triton_math import (
    COUNTS,
    ROW_TILE,
    after_previous,
    exact_dot,
    launching,
    pad_to_power_of_2,
)

SPLIT = 2 * KV_CHUNK  # slots of the first splits; of those behind twice as many
COMBINE = 16  # splits at a time; so many are short
MAX_HEAD_DIM = 256


def unsupported(target: Target) -> str | None:
    """Why no Triton op that attends can run on `target`."""
    if target.head_dim > MAX_HEAD_DIM:
        return f"head_dim: expected at most {MAX_HEAD_DIM}, got {target.head_dim}"
    return triton_math.unsupported(target)


@triton.jit(do_not_specialize=COUNTS)
def _split_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    seqlens_ptr,
    ancestors_ptr,  # None: a chain
    acc_ptr,  # [B * N * H_q, num_splits, D] float32
    top_ptr,  # [B * N * H_q, num_splits] float32, maximum of the scores
    mass_ptr,  # likewise, sum of exp(score - top)
    scale,
    first_node,
    num_nodes,
    num_slots,
    num_splits,
    num_tiles,  # of rows; programs behind num_tiles * num_splits walk a node each
    H_KV: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
    SPLIT: tl.constexpr,
    NUM_SHORT: tl.constexpr,
    CHUNK: tl.constexpr,
    TREE: tl.constexpr,
):
    after_previous()
    sequence = tl.program_id(1) // H_KV
    kv_head = tl.program_id(1) % H_KV
    committed = tl.load(seqlens_ptr + sequence)
    committed = tl.minimum(tl.maximum(committed, 0), num_slots)  # memory stays whole
    unit = tl.program_id(0)
    rows = tl.arange(0, ROWS)
    packed = unit < num_tiles * num_splits
    if packed:
        split = unit % num_splits
        pair = unit // num_splits * ROWS + rows
        node = pair // GROUP
        head = pair % GROUP
        live = node < num_nodes
        visible_stop = _start_of(split + 1, SPLIT, NUM_SHORT)
        busy = visible_stop <= committed
        ancestors = tl.zeros((), tl.int64)
        num_tree_nodes = 0
    else:
        GROUP_TILES: tl.constexpr = (GROUP + ROWS - 1) // ROWS
        walk = unit - num_tiles * num_splits
        own = walk % (num_nodes * GROUP_TILES) // GROUP_TILES
        num_tree_nodes = first_node + num_nodes
        split = _split_of(committed, SPLIT, NUM_SHORT) + walk // (num_nodes * GROUP_TILES)
        node = own + 0 * rows
        head = walk % GROUP_TILES * ROWS + rows
        live = head < GROUP
        place = sequence * num_nodes + own
        ancestors, path_len = _path_to(ancestors_ptr, place, first_node + own + 1, TREE)
        visible_stop = committed + tl.minimum(path_len, num_tree_nodes)
        is_seen = _start_of(split, SPLIT, NUM_SHORT) < visible_stop
        busy = is_seen & (committed + num_tree_nodes <= num_slots)
    if busy:
        row = ((sequence * num_nodes + node).to(tl.int64) * H_KV + kv_head) * GROUP + head
        dim = tl.arange(0, BLOCK_D)
        inside = live[:, None] & (dim < D)[None, :]
        q = tl.load(q_ptr + row[:, None] * D + dim[None, :], mask=inside, other=0.0)
        base = (sequence * H_KV + kv_head).to(tl.int64) * num_slots * D
        acc, top, mass = _walk_split(
            q, k_ptr + base, v_ptr + base, scale, committed, visible_stop, ancestors,
            num_tree_nodes, _start_of(split, SPLIT, NUM_SHORT),
            _start_of(split + 1, SPLIT, NUM_SHORT), dim, D, CHUNK, TREE,
        )  # fmt: skip
        place = row * num_splits + split
        tl.store(acc_ptr + place[:, None] * D + dim[None, :], acc, mask=inside)
        tl.store(top_ptr + place, top, mask=live)
        tl.store(mass_ptr + place, mass, mask=live)


@triton.jit
def _walk_split(
    q,
    k_ptr,
    v_ptr,
    scale,
    committed,
    visible_stop,
    ancestors,
    num_tree_nodes,
    split_start,
    split_stop,
    dim,
    D: tl.constexpr,
    CHUNK: tl.constexpr,
    TREE: tl.constexpr,
):
    """Online softmax over the visible slots of one split, a chunk at a time."""
    top = tl.full((q.shape[0],), float("-inf"), tl.float32)
    mass = tl.zeros((q.shape[0],), tl.float32)
    acc = tl.zeros((q.shape[0], dim.shape[0]), tl.float32)
    stop = tl.minimum(split_stop, visible_stop)
    for start in range(split_start, stop, CHUNK):
        path_slot = start + tl.arange(0, CHUNK)
        visible = path_slot < stop
        slot = path_slot
        if TREE:
            step = path_slot - committed
            in_tree = committed + _ancestor(ancestors, step, num_tree_nodes)
            slot = tl.where(step < 0, path_slot, in_tree)
        place = slot.to(tl.int64)[:, None] * D + dim[None, :]
        inside = visible[:, None] & (dim < D)[None, :]
        k = tl.load(k_ptr + place, mask=inside, other=0.0)
        v = tl.load(v_ptr + place, mask=inside, other=0.0)
        scores = exact_dot(q, tl.trans(k), tl.zeros((q.shape[0], CHUNK), tl.float32)) * scale
        scores = tl.where(visible[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp(scores - new_top[:, None])
        decay = tl.exp(top - new_top)
        mass = mass * decay + tl.sum(weights, axis=1)
        acc = exact_dot(weights.to(v.dtype), v, acc * decay[:, None])
        top = new_top
    return acc, top, mass


@triton.jit
def _start_of(split, SPLIT: tl.constexpr, NUM_SHORT: tl.constexpr):
    """The first slot of a split."""
    return SPLIT * (split + tl.maximum(split - NUM_SHORT, 0))


@triton.jit
def _split_of(slot, SPLIT: tl.constexpr, NUM_SHORT: tl.constexpr):
    """The split that has a slot."""
    short = slot // SPLIT
    return tl.where(short < NUM_SHORT, short, (short + NUM_SHORT) // 2)


@triton.jit
def _path_to(ancestors_ptr, place, chain_len, TREE: tl.constexpr):
    """A node's ancestors, itself included: as bits (of a chain: none), and their number."""
    if TREE:
        ancestors = tl.load(ancestors_ptr + place)
        return ancestors, tl.sum((ancestors >> tl.arange(0, 64)) & 1).to(tl.int32)
    else:
        return tl.zeros((), tl.int64), chain_len


@triton.jit
def _ancestor(ancestors, step, num_tree_nodes):
    """The node at each step of the path: the place of the step-th set bit; 0 where there is
    none.
    """
    node = tl.zeros_like(step)
    rank = tl.zeros((), tl.int32)
    for bit in range(num_tree_nodes):
        is_set = ((ancestors >> bit) & 1).to(tl.int32)
        node = tl.where(step == tl.where(is_set == 1, rank, -1), bit, node)
        rank += is_set
    return node


@triton.jit
def _partial(acc_ptr, top_ptr, mass_ptr, row, split, num_splits, stop, dim, D: tl.constexpr):
    """What the splits in front of `stop` have left: maxima, sums and values of a row."""
    place, live = row * num_splits + split, split < stop
    top = tl.load(top_ptr + place, mask=live, other=float("-inf"))
    mass = tl.load(mass_ptr + place, mask=live, other=0.0)
    inside = live[:, None] & (dim < D)[None, :]
    return top, mass, tl.load(acc_ptr + place[:, None] * D + dim[None, :], mask=inside, other=0.0)


@triton.jit(do_not_specialize=COUNTS)
def _combine_kernel(
    acc_ptr,
    top_ptr,
    mass_ptr,
    out_ptr,
    seqlens_ptr,
    ancestors_ptr,
    first_node,
    num_nodes,
    num_splits,
    H_Q: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK: tl.constexpr,
    TREE: tl.constexpr,
):
    """One row: its splits in order. The first are read before it is known how many there are: of
    few rows it is the wait for memory that this takes.
    """
    after_previous()
    row = tl.program_id(0).to(tl.int64)
    node = row // H_Q
    lane, dim = tl.arange(0, BLOCK), tl.arange(0, BLOCK_D)
    top, first_mass, first_part = _partial(
        acc_ptr, top_ptr, mass_ptr, row, lane, num_splits, num_splits, dim, D
    )
    committed = tl.load(seqlens_ptr + node // num_nodes)
    chain_len = (first_node + node % num_nodes + 1).to(tl.int32)
    _, path_len = _path_to(ancestors_ptr, node, chain_len, TREE)
    used = tl.minimum(_split_of(committed + path_len - 1, SPLIT, BLOCK) + 1, num_splits)
    live = lane < used
    top = tl.where(live, top, float("-inf"))
    highest = tl.max(top, axis=0)
    for start in range(BLOCK, used, BLOCK):
        split = start + lane
        here = tl.load(top_ptr + row * num_splits + split, mask=split < used, other=float("-inf"))
        highest = tl.maximum(highest, tl.max(here, axis=0))
    weight = tl.exp(top - highest)
    mass = tl.sum(weight * tl.where(live, first_mass, 0.0), axis=0)
    acc = tl.sum(weight[:, None] * tl.where(live[:, None], first_part, 0.0), axis=0)
    for start in range(BLOCK, used, BLOCK):
        here, more, part = _partial(
            acc_ptr, top_ptr, mass_ptr, row, start + lane, num_splits, used, dim, D
        )
        weight = tl.exp(here - highest)
        mass += tl.sum(weight * more, axis=0)
        acc += tl.sum(weight[:, None] * part, axis=0)
    out = (acc / mass).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * D + dim, out, mask=dim < D)


def num_splits_of(num_slots: int) -> int:
    """Of caches with so many slots."""
    short = triton.cdiv(num_slots, SPLIT)
    return int(short if short <= COMBINE else COMBINE + triton.cdiv(short - COMBINE, 2))


def attend(q: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch, scale: float) -> Tensor:
    """tree_attention in two launches. Checks nothing."""
    batch, num_nodes, h_q, head_dim = q.shape
    h_kv, num_slots = k_cache.shape[1:3]
    out = q.new_empty(q.shape)
    if q.numel() == 0:
        return out
    group, num_splits = h_q // h_kv, num_splits_of(num_slots)
    num_tiles = triton.cdiv(num_nodes * group, ROW_TILE)
    tail_splits = (nodes.first_node + num_nodes + SPLIT - 2) // SPLIT + 1
    walks = num_nodes * triton.cdiv(group, ROW_TILE) * tail_splits
    num_rows, block_d = batch * num_nodes * h_q, pad_to_power_of_2(head_dim, 16)
    acc = q.new_empty(num_rows, num_splits, head_dim, dtype=torch.float32)
    top, mass = (q.new_empty(num_rows, num_splits, dtype=torch.float32) for _ in range(2))
    is_tree = nodes.ancestors is not None
    _split_kernel[(num_tiles * num_splits + walks, batch * h_kv)](
        q, k_cache, v_cache, nodes.cache_seqlens, nodes.ancestors, acc, top, mass, scale,
        nodes.first_node, num_nodes, num_slots, num_splits, num_tiles, H_KV=h_kv, GROUP=group,
        D=head_dim, BLOCK_D=block_d, ROWS=ROW_TILE, SPLIT=SPLIT, NUM_SHORT=COMBINE,
        CHUNK=KV_CHUNK, TREE=is_tree,
        num_warps=4, num_stages=2, **launching(),
    )  # fmt: skip
    _combine_kernel[(num_rows,)](
        acc, top, mass, out, nodes.cache_seqlens, nodes.ancestors, nodes.first_node, num_nodes,
        num_splits, H_Q=h_q, D=head_dim, BLOCK_D=block_d, SPLIT=SPLIT, BLOCK=COMBINE, TREE=is_tree,
        num_warps=4, **launching(),
    )  # fmt: skip
    return out
