"""What a row keeps, in Triton: its largest logit and, where a warp asks, the least that is kept.

Logits that may be it are gathered; among them an interval of float32's bits, in their order, is cut
in PIVOTS parts until a single logit is left. Of a sum every part is added up in the same order, so
that it grows with what is in it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kangaroo_kernels.triton_math import COUNTS, after_previous
from kangaroo_kernels.triton_rank import LOWEST

WIDE = 4096  # logits that are read at once, and that are gathered at most
SEARCHED = 256  # logits that are compared with every pivot at once
PIVOTS = 16
NO_KEY = tl.constexpr(-2139095041)  # of -inf


@triton.jit
def _key(x):
    """int32 in the order of the floats."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def load_logits(logits, column, num_ids):
    """-inf where there is no such column."""
    return tl.load(logits + column, mask=column < num_ids, other=float("-inf"))


@triton.jit
def _measure(
    logits, num_ids, pivot, largest, temperature, BY_MASS: tl.constexpr, BLOCK: tl.constexpr
):
    """Of the logits from each of the keys `pivot` [P] on: how many, and what they weigh.

    A thread has a logit or two and many pivots, for weighing a logit is what costs.
    """
    counts = tl.zeros((pivot.shape[0], BLOCK), tl.int32)
    masses = tl.zeros((pivot.shape[0], BLOCK), tl.float64)
    lowest = tl.min(pivot, axis=0)
    for start in range(0, num_ids, BLOCK):
        x = load_logits(logits, start + tl.arange(0, BLOCK), num_ids)
        key = _key(x)
        if tl.max(key, axis=0) >= lowest:  # others would add zeros
            above = key[None, :] >= pivot[:, None]
            counts += above.to(tl.int32)
            if BY_MASS:
                weight = tl.exp((x.to(tl.float64) - largest) / temperature)
                masses += tl.where(above, weight[None, :], 0.0)
    return tl.sum(counts, axis=1), tl.sum(masses, axis=1)


@triton.jit
def _search(
    logits, num_ids, low, high, wanted, total, largest, temperature, BY_MASS: tl.constexpr,
    BLOCK: tl.constexpr, PIVOTS: tl.constexpr,
):  # fmt: skip
    """The largest key, or one that keeps the same, from which on there are `wanted` logits, or that
    part of the mass `total`; -1: of those from `low` on. No logit has a key from `high` on.
    """
    lane = tl.arange(0, PIVOTS).to(tl.int64)
    beyond = tl.zeros((), tl.int32)  # logits from high on
    left = tl.full((), 2, tl.int32)  # logits from low to high
    while (high - low > 1) & (left > 1):
        pivot = low + (high - low) * lane // PIVOTS
        counts, masses = _measure(
            logits, num_ids, pivot.to(tl.int32), largest, temperature, BY_MASS, BLOCK
        )
        if BY_MASS:
            total = tl.where(total < 0, tl.max(masses, axis=0), total)
            enough = masses >= wanted * total
        else:
            enough = counts >= wanted
        low = tl.max(tl.where(enough, pivot, low), axis=0)
        high = tl.min(tl.where(enough, high, pivot), axis=0)
        beyond = tl.max(tl.where(enough, beyond, counts), axis=0)
        left = tl.min(tl.where(enough, counts, 2147483647), axis=0) - beyond
    return low


@triton.jit
def _gather(logits, num_ids, low, largest, temperature, weigh, scratch, WIDE: tl.constexpr):
    """How many logits have keys from `low` on, -inf behind the last column too; they go to
    `scratch` as far as there is room. And what all logits weigh, if wanted, else -1.
    """
    lane = tl.arange(0, WIDE)
    found = tl.zeros((), tl.int32)
    weights = tl.zeros((WIDE,), tl.float64)
    for start in range(0, num_ids, WIDE):
        x = load_logits(logits, start + lane, num_ids)
        inside = _key(x) >= low
        place = found + tl.cumsum(inside.to(tl.int32), axis=0) - 1
        tl.store(scratch + place, x, mask=inside & (place < WIDE))
        found += tl.sum(inside.to(tl.int32), axis=0)
        if weigh:
            weights += tl.exp((x.to(tl.float64) - largest) / temperature)
    total = tl.full((), -1.0, tl.float64)
    if weigh:
        total = tl.sum(weights, axis=0)
    return found, total


@triton.jit
def _least(
    logits, num_ids, most, largest, temperature, top_k, top_p, scratch, WIDE: tl.constexpr,
    BLOCK: tl.constexpr, PIVOTS: tl.constexpr,
):  # fmt: skip
    """The least logit that top-k and top-p keep, of which at least one asks. `most` [WIDE] are the
    largest of so many parts of the row.
    """
    few = (top_k > 0) & (top_k < num_ids)
    best = largest.to(tl.float64)
    low, high = tl.full((), NO_KEY, tl.int64), _key(largest).to(tl.int64) + 1
    none = tl.full((), -1.0, tl.float64)
    if few:  # the largest logits of so many parts are so many logits
        tl.store(scratch + tl.arange(0, WIDE), most)
        tl.debug_barrier()
        low = _search(
            scratch, tl.minimum(num_ids, WIDE), low, high, top_k, none, best, temperature, False,
            BLOCK, PIVOTS,
        )  # fmt: skip
        tl.debug_barrier()
    else:  # all that are smaller weigh together less than half of what top-p leaves out
        part = (1 - top_p) / (2 * num_ids.to(tl.float64))
        floor = tl.maximum(best + temperature * tl.log(part), LOWEST)
        low = _key(floor.to(tl.float32)).to(tl.int64)
    count, total = _gather(logits, num_ids, low, best, temperature, few == 0, scratch, WIDE)
    tl.debug_barrier()
    source = scratch
    if count > WIDE:
        source, count = logits, num_ids
    if few:
        low = _search(
            source, count, low, high, top_k, none, best, temperature, False, BLOCK, PIVOTS
        )
    if top_p < 1:
        low = _search(
            source, count, low, high, top_p, total, best, temperature, True, BLOCK, PIVOTS
        )
    kept = tl.full((BLOCK,), float("inf"), tl.float32)
    for start in range(0, count, BLOCK):
        x = load_logits(source, start + tl.arange(0, BLOCK), count)
        kept = tl.minimum(kept, tl.where(_key(x) >= low, x, float("inf")))
    return tl.min(kept, axis=0)


@triton.jit(do_not_specialize=COUNTS)
def threshold_kernel(
    logits_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    scratch_ptr,  # [M, WIDE] float32
    largest_ptr,  # [M] float32; inf where there is NaN
    least_ptr,  # [M] float32: of the logits that top-k and top-p keep; -inf where neither asks
    num_nodes,
    num_ids,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    PIVOTS: tl.constexpr,
):
    """One program per row."""
    after_previous()
    row = tl.program_id(0).to(tl.int64)
    logits = logits_ptr + row * num_ids
    most = tl.full((WIDE,), float("-inf"), tl.float32)
    for start in range(0, num_ids, WIDE):
        x = load_logits(logits, start + tl.arange(0, WIDE), num_ids)
        most = tl.maximum(most, tl.where(x == x, x, float("inf")))
    largest = tl.max(most, axis=0)
    temperature = tl.load(temperature_ptr + row // num_nodes)
    top_k = tl.load(top_k_ptr + row // num_nodes)
    top_p = tl.load(top_p_ptr + row // num_nodes)
    asked = ((top_k > 0) & (top_k < num_ids)) | (top_p < 1)
    least = tl.full((), float("-inf"), tl.float32)
    if asked & (temperature > 0) & (tl.abs(largest) < float("inf")):
        least = _least(
            logits, num_ids, most, largest, temperature, top_k, top_p, scratch_ptr + row * WIDE,
            WIDE, BLOCK, PIVOTS,
        )  # fmt: skip
    tl.store(largest_ptr + row, largest)
    tl.store(least_ptr + row, least)
