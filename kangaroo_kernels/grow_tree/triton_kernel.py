"""grow_tree in Triton: one program per tree. Every candidate counts those in front of it."""

import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.checks import require_growth
from kangaroo_kernels.draft_trees import DraftTrees, Seedbed
from kangaroo_kernels.triton_math import COUNTS, pad_to_power_of_2, unsupported

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
    out_tokens_ptr,
    out_positions_ptr,
    num_nodes_ptr,
    stopped_ptr,
    threshold_ptr,
    out_parents_ptr,
    out_ancestors_ptr,
    first,
    num_new,
    next_width,
    passes_left,
    MAX_NODES: tl.constexpr,
    P: tl.constexpr,
    K: tl.constexpr,
    SHARPNESS: tl.constexpr,
    PLACES: tl.constexpr,
    RANKS: tl.constexpr,
    NODES: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    if tl.load(stopped_ptr + sequence) == 0:
        ranked_ptr += sequence * num_new * K
        probabilities_ptr += sequence * num_new * K
        tokens_ptr += sequence * P
        positions_ptr += sequence * P
        parents_ptr += sequence * P
        ancestors_ptr += sequence * P
        paths_ptr += sequence * P
        sure_ptr += sequence * P
        candidates_ptr += sequence * P * K
        waiting_ptr += sequence * P * K
        out_tokens_ptr += sequence * MAX_NODES
        out_positions_ptr += sequence * MAX_NODES
        out_parents_ptr += sequence * MAX_NODES
        out_ancestors_ptr += sequence * MAX_NODES
        if first == 0:
            tl.store(tokens_ptr, tl.load(out_tokens_ptr))
            tl.store(positions_ptr, tl.load(out_positions_ptr))
            tl.store(parents_ptr, tl.full((), -1, tl.int64))
            tl.store(ancestors_ptr, tl.full((), 1, tl.int64))
            tl.store(paths_ptr, tl.full((), 1.0, tl.float64))
            tl.debug_barrier()
        threshold = tl.load(threshold_ptr + sequence)
        _offer(
            ranked_ptr, probabilities_ptr, paths_ptr, sure_ptr, candidates_ptr, waiting_ptr, first,
            num_new, threshold, K, SHARPNESS, PLACES, RANKS,
        )  # fmt: skip
        tl.debug_barrier()

        known = first + num_new
        own = tl.arange(0, PLACES * RANKS)
        value, sure = _waiting(waiting_ptr, sure_ptr, own, known, K, RANKS)
        waits, place = value >= 0, own // RANKS
        more = tl.zeros((PLACES * RANKS,), tl.int32)
        ahead = tl.zeros((PLACES * RANKS,), tl.int32)
        sure_ahead = tl.zeros((PLACES * RANKS,), tl.int32)
        for start in range(0, known * RANKS, CHUNK):
            other = start + tl.arange(0, CHUNK)
            theirs, they = _waiting(waiting_ptr, sure_ptr, other, known, K, RANKS)
            above = theirs[None, :] > value[:, None]
            equal = (theirs[None, :] == value[:, None]) & (other[None, :] < own[:, None])
            before = (theirs >= 0)[None, :] & (above | equal)
            more += tl.sum(above.to(tl.int32), axis=1)
            ahead += tl.sum(before.to(tl.int32), axis=1)
            sure_ahead += tl.sum((before & they[None, :]).to(tl.int32), axis=1)
        parent = tl.zeros((PLACES * RANKS,), tl.int32)  # as a node of the tree
        for start in range(0, known, CHUNK):
            other = start + tl.arange(0, CHUNK)
            path = tl.load(paths_ptr + other, mask=other < known, other=-1.0)
            more += tl.sum((path[None, :] > value[:, None]).to(tl.int32), axis=1)
            lower = (path >= 0)[None, :] & (other[None, :] < place[:, None])
            parent += tl.sum(lower.to(tl.int32), axis=1)
        inner = waits & sure & (more < MAX_NODES - 1)

        spot = tl.arange(0, PLACES)
        live = tl.load(paths_ptr + spot, mask=spot < known, other=-1.0) >= 0
        num_live = tl.sum(live.to(tl.int32), axis=0)
        nodes_left = MAX_NODES - num_live
        token = tl.load(candidates_ptr + place * K + own % RANKS, mask=waits, other=0)
        depth = tl.load(positions_ptr + place, mask=waits, other=0) + 1
        root = tl.load(positions_ptr)
        any_inner = tl.sum(inner.to(tl.int32), axis=0) > 0
        tl.debug_barrier()  # all have seen who waits
        if (passes_left > 1) & (nodes_left > 1) & any_inner:
            share = (nodes_left + 2 * passes_left - 1) // (2 * passes_left)
            chosen = inner & (sure_ahead < tl.minimum(share, next_width))
            at = known + sure_ahead
            tl.store(tokens_ptr + at, token, mask=chosen)
            tl.store(positions_ptr + at, depth, mask=chosen)
            tl.store(parents_ptr + at, place.to(tl.int64), mask=chosen)
            above = tl.load(ancestors_ptr + place, mask=chosen, other=0)
            tl.store(ancestors_ptr + at, above | _bit(at), mask=chosen)
            tl.store(paths_ptr + at, value, mask=chosen)
            tl.store(waiting_ptr + place * K + own % RANKS, -1.0, mask=chosen)
            taken = known + tl.sum(chosen.to(tl.int32), axis=0)
            empty = (spot >= taken) & (spot < known + next_width)
            _pad(tokens_ptr, positions_ptr, parents_ptr, ancestors_ptr, root, spot, empty)
            tl.store(paths_ptr + spot, -1.0, mask=empty)
        else:
            node = tl.cumsum(live.to(tl.int32), axis=0) - live.to(tl.int32)
            inside = tl.load(tokens_ptr + spot, mask=live, other=0)
            tl.store(out_tokens_ptr + node, inside, mask=live)
            position = tl.load(positions_ptr + spot, mask=live, other=0)
            tl.store(out_positions_ptr + node, position, mask=live)
            behind = tl.load(parents_ptr + spot, mask=live, other=-1)
            lower = live[None, :] & (spot[None, :] < behind[:, None])
            index = tl.sum(lower.to(tl.int64), axis=1)
            tl.store(out_parents_ptr + node, tl.where(behind < 0, -1, index), mask=live)
            mask = tl.load(ancestors_ptr + spot, mask=live, other=0)
            seen = (mask[:, None] >> spot[None, :].to(tl.int64)) & 1
            bits = tl.where(live[None, :] & (seen != 0), _bit(node)[None, :], 0)
            tl.store(out_ancestors_ptr + node, tl.sum(bits, axis=1), mask=live)
            tl.debug_barrier()
            leaf, at = waits & (ahead < nodes_left), num_live + ahead
            tl.store(out_tokens_ptr + at, token, mask=leaf)
            tl.store(out_positions_ptr + at, depth, mask=leaf)
            tl.store(out_parents_ptr + at, parent.to(tl.int64), mask=leaf)
            above = tl.load(out_ancestors_ptr + parent, mask=leaf, other=0)
            tl.store(out_ancestors_ptr + at, above | _bit(at), mask=leaf)
            total = num_live + tl.sum(leaf.to(tl.int32), axis=0)
            rest = tl.arange(0, NODES)
            _pad(
                out_tokens_ptr, out_positions_ptr, out_parents_ptr, out_ancestors_ptr, root, rest,
                (rest >= total) & (rest < MAX_NODES),
            )  # fmt: skip
            tl.store(num_nodes_ptr + sequence, total)
            tl.store(stopped_ptr + sequence, 1)


@triton.jit
def _offer(
    ranked_ptr,
    probabilities_ptr,
    paths_ptr,
    sure_ptr,
    candidates_ptr,
    waiting_ptr,
    first,
    num_new,
    threshold,
    K: tl.constexpr,
    SHARPNESS: tl.constexpr,
    PLACES: tl.constexpr,
    RANKS: tl.constexpr,
):
    """What is ranked behind the newest places waits."""
    new, rank = tl.arange(0, PLACES), tl.arange(0, RANKS)
    there = new < num_new
    known = there[:, None] & (rank < K)[None, :]
    at = new[:, None] * K + rank[None, :]
    row = tl.load(probabilities_ptr + at, mask=known, other=0.0).to(tl.float64)
    some = row > 0
    weight = tl.where(some, tl.exp(SHARPNESS * tl.log(tl.where(some, row, 1.0))), 0.0)
    total = tl.sum(weight, axis=1)
    share = weight / tl.where(total > 0, total, 1.0)[:, None]
    path = tl.load(paths_ptr + first + new, mask=there, other=-1.0)
    value = tl.where((path >= 0)[:, None], path[:, None] * share, -1.0)
    tl.store(waiting_ptr + first * K + at, value, mask=known)
    tl.store(candidates_ptr + first * K + at, tl.load(ranked_ptr + at, mask=known), mask=known)
    best = tl.load(probabilities_ptr + new * K, mask=there, other=0.0)
    tl.store(sure_ptr + first + new, (best >= threshold).to(tl.int32), mask=there)


@triton.jit
def _waiting(waiting_ptr, sure_ptr, index, known, K: tl.constexpr, RANKS: tl.constexpr):
    """Of candidates by place and rank: the path's probability, -1 where none waits; and whether
    inner nodes may follow the place.
    """
    place, rank = index // RANKS, index % RANKS
    there = (place < known) & (rank < K)
    value = tl.load(waiting_ptr + place * K + rank, mask=there, other=-1.0)
    return value, tl.load(sure_ptr + place, mask=there, other=0) != 0


@triton.jit
def _bit(node):
    return tl.full((), 1, tl.int64) << node.to(tl.int64)


@triton.jit
def _pad(tokens_ptr, positions_ptr, parents_ptr, ancestors_ptr, root, at, mask):
    """Nodes that no path leads to: they see the prefix and themselves alone."""
    tl.store(tokens_ptr + at, tl.zeros_like(at).to(tl.int64), mask=mask)
    tl.store(positions_ptr + at, root, mask=mask)
    tl.store(parents_ptr + at, tl.full((), -1, tl.int64), mask=mask)
    tl.store(ancestors_ptr + at, _bit(at), mask=mask)


def grow_tree(
    tokens: Tensor,
    probabilities: Tensor,
    seedbed: Seedbed,
    trees: DraftTrees,
    *,
    first: int,
    width: int,
    passes_left: int,
    sharpness: float,
) -> None:
    num_places, max_nodes, k = require_growth(
        tokens, probabilities, seedbed, trees, (first, width, passes_left, sharpness)
    )
    places, ranks = pad_to_power_of_2(num_places), pad_to_power_of_2(k)
    batch, num_new, _ = tokens.shape
    _grow_tree_kernel[(batch,)](
        tokens, probabilities, *seedbed, *trees.nodes, trees.parents, trees.ancestors, first,
        num_new, width, passes_left, MAX_NODES=max_nodes, P=num_places, K=k, SHARPNESS=sharpness,
        PLACES=places, RANKS=ranks, NODES=pad_to_power_of_2(max_nodes),
        num_warps=4 if places * ranks <= 256 else 16, enable_fp_fusion=False,
    )  # fmt: skip
