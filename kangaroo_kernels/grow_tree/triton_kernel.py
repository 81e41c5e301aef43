"""grow_tree in Triton: one program per tree. Every candidate counts those in front of it."""

import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.draft_trees import DraftTrees, Seedbed
from kangaroo_kernels.tree_checks import require_growth
from kangaroo_kernels.triton_math import (
    COUNTS,
    after_previous,
    launching,
    pad_to_power_of_2,
    unsupported,
)

__all__ = ["grow_tree", "unsupported"]

CHUNK = tl.constexpr(8)  # candidates that all others are compared with at once


@triton.jit(do_not_specialize=[*COUNTS, "first", "num_new", "next_width", "passes_left"])
def _grow_tree_kernel(
    ranked_ptr,
    probabilities_ptr,
    tokens_ptr,
    positions_ptr,
    parents_ptr,
    ancestors_ptr,
    paths_ptr,
    sure_ptr,
    candidates_ptr,
    waiting_ptr,
    tree_tokens_ptr,
    tree_positions_ptr,
    num_nodes_ptr,
    stopped_ptr,
    threshold_ptr,
    tree_parents_ptr,
    tree_ancestors_ptr,
    first,
    num_new,
    next_width,
    passes_left,
    num_nodes,
    MAX_NODES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    SHARPNESS: tl.constexpr,
    PLACES: tl.constexpr,
    RANKS: tl.constexpr,
    NODES: tl.constexpr,
):
    after_previous()
    b = tl.program_id(0).to(tl.int64)
    if tl.load(stopped_ptr + b) == 0:
        _grow(
            ranked_ptr + b * num_new * K, probabilities_ptr + b * num_new * K, tokens_ptr + b * P,
            positions_ptr + b * P, parents_ptr + b * P, ancestors_ptr + b * P, paths_ptr + b * P,
            sure_ptr + b * P, candidates_ptr + b * P * K, waiting_ptr + b * P * K,
            tree_tokens_ptr + b * num_nodes, tree_positions_ptr + b * num_nodes, num_nodes_ptr + b,
            stopped_ptr + b, threshold_ptr + b, tree_parents_ptr + b * num_nodes,
            tree_ancestors_ptr + b * num_nodes, first, num_new, next_width, passes_left, num_nodes,
            MAX_NODES, K, SHARPNESS, PLACES, RANKS, NODES,
        )  # fmt: skip


# fmt: off
@triton.jit
def _grow(
    ranked, probabilities, tokens, positions, parents, ancestors, paths, sure, candidates, waiting,
    tree_tokens, tree_positions, size, stopped, threshold, tree_parents, tree_ancestors, first,
    num_new, next_width, passes_left, num_nodes, MAX_NODES: tl.constexpr, K: tl.constexpr,
    SHARPNESS: tl.constexpr, PLACES: tl.constexpr, RANKS: tl.constexpr, NODES: tl.constexpr,
):
    """One tree that has not stopped; arguments point to its own row of each array."""
    if first == 0:
        _plant(tree_tokens, tree_positions, tokens, positions, parents, ancestors, paths)
    _offer(
        ranked, probabilities, paths, sure, candidates, waiting, first, num_new,
        tl.load(threshold), K, SHARPNESS, PLACES, RANKS,
    )
    tl.debug_barrier()
    known, own = first + num_new, tl.arange(0, PLACES * RANKS)
    value, inner, ahead, inner_ahead, parent = _ranked(
        own, waiting, sure, paths, known, MAX_NODES, K, PLACES, RANKS
    )
    spot = tl.arange(0, PLACES)
    live = tl.load(paths + spot, mask=spot < known, other=-1.0) >= 0
    num_live = tl.sum(live.to(tl.int32), axis=0)
    nodes_left = MAX_NODES - num_live
    waits, place, at = value >= 0, own // RANKS, own // RANKS * K + own % RANKS
    token = tl.load(candidates + at, mask=waits, other=0)
    position = tl.load(positions + place, mask=waits, other=0) + 1
    any_inner = tl.sum(inner.to(tl.int32), axis=0) > 0
    tl.debug_barrier()  # all have seen who waits
    if (passes_left > 1) & (nodes_left > 1) & any_inner:
        share = (nodes_left + 2 * passes_left - 1) // (2 * passes_left)
        chosen = inner & (inner_ahead < tl.minimum(share, next_width))
        node, above = known + inner_ahead, tl.load(ancestors + place, mask=chosen, other=0)
        _put(tokens, positions, parents, ancestors, node, token, position, place, above, chosen)
        tl.store(paths + node, value, mask=chosen)
        tl.store(waiting + at, -1.0, mask=chosen)
        empty = (spot >= known + tl.sum(chosen.to(tl.int32), axis=0)) & (spot < known + next_width)
        _pad(tokens, positions, parents, ancestors, tl.load(positions), spot, empty)
        tl.store(paths + spot, -1.0, mask=empty)
    else:
        _copy(
            tokens, positions, parents, ancestors, tree_tokens, tree_positions, tree_parents,
            tree_ancestors, spot, live,
        )
        tl.debug_barrier()
        leaf, node = waits & (ahead < nodes_left), num_live + ahead
        above = tl.load(tree_ancestors + parent, mask=leaf, other=0)
        _put(
            tree_tokens, tree_positions, tree_parents, tree_ancestors, node, token, position,
            parent, above, leaf,
        )
        total, rest = num_live + tl.sum(leaf.to(tl.int32), axis=0), tl.arange(0, NODES)
        _pad(
            tree_tokens, tree_positions, tree_parents, tree_ancestors, tl.load(positions), rest,
            (rest >= total) & (rest < num_nodes),
        )
        tl.store(size, total)
        tl.store(stopped, 1)


@triton.jit
def _plant(tree_tokens, tree_positions, tokens, positions, parents, ancestors, paths):
    """The root begins a tree."""
    tl.store(tokens, tl.load(tree_tokens))
    tl.store(positions, tl.load(tree_positions))
    tl.store(parents, tl.full((), -1, tl.int64))
    tl.store(ancestors, tl.full((), 1, tl.int64))
    tl.store(paths, tl.full((), 1.0, tl.float64))
    tl.debug_barrier()


@triton.jit
def _offer(
    ranked, probabilities, paths, sure, candidates, waiting, first, num_new, threshold,
    K: tl.constexpr, SHARPNESS: tl.constexpr, PLACES: tl.constexpr, RANKS: tl.constexpr,
):
    """What is ranked behind the newest places waits."""
    new, rank = tl.arange(0, PLACES), tl.arange(0, RANKS)
    there = new < num_new
    known, at = there[:, None] & (rank < K)[None, :], new[:, None] * K + rank[None, :]
    row = tl.load(probabilities + at, mask=known, other=0.0).to(tl.float64)
    some = row > 0
    weight = tl.where(some, tl.exp(SHARPNESS * tl.log(tl.where(some, row, 1.0))), 0.0)
    total = tl.sum(weight, axis=1)
    share = weight / tl.where(total > 0, total, 1.0)[:, None]
    path = tl.load(paths + first + new, mask=there, other=-1.0)
    value = tl.where((path >= 0)[:, None], path[:, None] * share, -1.0)
    tl.store(waiting + first * K + at, value, mask=known)
    tl.store(candidates + first * K + at, tl.load(ranked + at, mask=known), mask=known)
    best = tl.load(probabilities + new * K, mask=there, other=0.0)
    tl.store(sure + first + new, (best >= threshold).to(tl.int32), mask=there)


@triton.jit
def _ranked(
    own, waiting, sure, paths, known, MAX_NODES: tl.constexpr, K: tl.constexpr,
    PLACES: tl.constexpr, RANKS: tl.constexpr,
):
    """Of every candidate: its path's probability, -1 where none waits; whether it may become an
    inner node; how many of all, and of those from sure places, are in front of it; its parent as a
    node of the tree.

    All that are in front of an inner node and from sure places are inner nodes too.
    """
    value, from_sure = _waiting(waiting, sure, own, known, K, RANKS)
    more = tl.zeros((PLACES * RANKS,), tl.int32)
    ahead = tl.zeros((PLACES * RANKS,), tl.int32)
    inner_ahead = tl.zeros((PLACES * RANKS,), tl.int32)
    for start in range(0, known * RANKS, CHUNK):
        other = start + tl.arange(0, CHUNK)
        theirs, they = _waiting(waiting, sure, other, known, K, RANKS)
        above = theirs[None, :] > value[:, None]
        equal = (theirs[None, :] == value[:, None]) & (other[None, :] < own[:, None])
        before = (theirs >= 0)[None, :] & (above | equal)
        more += tl.sum(above.to(tl.int32), axis=1)
        ahead += tl.sum(before.to(tl.int32), axis=1)
        inner_ahead += tl.sum((before & they[None, :]).to(tl.int32), axis=1)
    parent = tl.zeros((PLACES * RANKS,), tl.int32)
    for start in range(0, known, CHUNK):
        other = start + tl.arange(0, CHUNK)
        path = tl.load(paths + other, mask=other < known, other=-1.0)
        more += tl.sum((path[None, :] > value[:, None]).to(tl.int32), axis=1)
        lower = (path >= 0)[None, :] & (other[None, :] < (own // RANKS)[:, None])
        parent += tl.sum(lower.to(tl.int32), axis=1)
    inner = (value >= 0) & from_sure & (more < MAX_NODES - 1)
    return value, inner, ahead, inner_ahead, parent


@triton.jit
def _waiting(waiting, sure, index, known, K: tl.constexpr, RANKS: tl.constexpr):
    """Of candidates by place and rank: the path's probability; whether the place was sure."""
    place, rank = index // RANKS, index % RANKS
    there = (place < known) & (rank < K)
    value = tl.load(waiting + place * K + rank, mask=there, other=-1.0)
    return value, tl.load(sure + place, mask=there, other=0) != 0


@triton.jit
def _copy(
    tokens, positions, parents, ancestors, tree_tokens, tree_positions, tree_parents,
    tree_ancestors, spot, live,
):
    """Inner nodes become the first of the tree, in the order of their places."""
    node = tl.cumsum(live.to(tl.int32), axis=0) - live.to(tl.int32)
    behind = tl.load(parents + spot, mask=live, other=-1)
    lower = live[None, :] & (spot[None, :] < behind[:, None])
    parent = tl.where(behind < 0, -1, tl.sum(lower.to(tl.int64), axis=1))
    mask = tl.load(ancestors + spot, mask=live, other=0)
    seen = live[None, :] & (((mask[:, None] >> spot[None, :].to(tl.int64)) & 1) != 0)
    above = tl.sum(tl.where(seen, _bit(node)[None, :], 0), axis=1)
    token = tl.load(tokens + spot, mask=live, other=0)
    position = tl.load(positions + spot, mask=live, other=0)
    _put(
        tree_tokens, tree_positions, tree_parents, tree_ancestors, node, token, position, parent,
        above, live,
    )


@triton.jit
def _put(
    tokens, positions, parents, ancestors, node, token, position, parent, above, mask
):
    """Nodes that see `above` and themselves."""
    tl.store(tokens + node, token, mask=mask)
    tl.store(positions + node, position, mask=mask)
    tl.store(parents + node, parent.to(tl.int64), mask=mask)
    tl.store(ancestors + node, above | _bit(node), mask=mask)


@triton.jit
def _pad(tokens, positions, parents, ancestors, root, node, mask):
    """Nodes that no path leads to: they see the prefix and themselves alone."""
    none = tl.zeros_like(node).to(tl.int64)
    _put(tokens, positions, parents, ancestors, node, none, root, none - 1, none, mask)


@triton.jit
def _bit(node):
    return tl.full((), 1, tl.int64) << node.to(tl.int64)
# fmt: on


def grow_tree(
    tokens: Tensor,
    probabilities: Tensor,
    seedbed: Seedbed,
    trees: DraftTrees,
    *,
    max_nodes: int,
    first: int,
    width: int,
    passes_left: int,
    sharpness: float,
) -> None:
    rule = max_nodes, first, width, passes_left, sharpness
    num_places, k = require_growth(tokens, probabilities, seedbed, trees, rule)
    places, ranks = pad_to_power_of_2(num_places), pad_to_power_of_2(k)
    (batch, num_new, _), num_nodes = tokens.shape, trees.parents.shape[1]
    _grow_tree_kernel[(batch,)](
        tokens, probabilities, *seedbed, *trees.nodes, trees.parents, trees.ancestors, first,
        num_new, width, passes_left, num_nodes, MAX_NODES=max_nodes, P=num_places, K=k,
        SHARPNESS=sharpness, PLACES=places, RANKS=ranks, NODES=pad_to_power_of_2(num_nodes),
        num_warps=4 if places * ranks <= 256 else 16, **launching(fp_fusion=False),
    )  # fmt: skip
