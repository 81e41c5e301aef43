"""draw_tokens in Triton: what a row keeps, a race in every tile, then the tiles' best are merged.

Of a row the first launch finds the largest logit and, where a warp asks, the least that it keeps,
by halving an interval of float32's bits in their order, several pivots a pass.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.checks import (
    require,
    require_chain,
    require_draws,
    require_increasing,
    require_within,
    sizes,
)
from kangaroo_kernels.draft_head import MAX_K, DraftChain
from kangaroo_kernels.draws import RACE, Draws
from kangaroo_kernels.triton_math import COUNTS, unsupported
from kangaroo_kernels.triton_rank import keep_best, merge_best

__all__ = ["draw_tokens", "unsupported"]

WIDE = 8192  # logits that are only compared, at once
BLOCK = 1024  # logits of a race at once
SEARCHED = 512  # logits that are compared with every pivot at once
PIVOTS = 16
LAST_TOKEN = 2**31 - 1
LOWEST = tl.constexpr(-1.7976931348623157e308)  # finite, in float64
PURPOSE = tl.constexpr(RACE)
UNIT = tl.constexpr(2.0**-53)


@triton.jit
def _key(x):
    """int32 in the order of the floats."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _load(logits, column, num_ids):
    return tl.load(logits + column, mask=column < num_ids, other=float("-inf"))


@triton.jit
def _measure(
    logits, num_ids, pivot, largest, temperature, BY_MASS: tl.constexpr, BLOCK: tl.constexpr
):
    """Of the logits from each of the keys `pivot` [P] on: how many, and what they weigh."""
    counts = tl.zeros((BLOCK, pivot.shape[0]), tl.int32)
    masses = tl.zeros((BLOCK, pivot.shape[0]), tl.float64)
    lowest = tl.min(pivot, axis=0)
    for start in range(0, num_ids, BLOCK):
        x = _load(logits, start + tl.arange(0, BLOCK), num_ids)
        key = _key(x)
        if tl.max(key, axis=0) >= lowest:  # others would add zeros
            above = key[:, None] >= pivot[None, :]
            counts += above.to(tl.int32)
            if BY_MASS:
                weight = tl.exp((x.to(tl.float64) - largest) / temperature)
                masses += tl.where(above, weight[:, None], 0.0)
    return tl.sum(counts, axis=0), tl.sum(masses, axis=0)


@triton.jit
def _search(
    logits, num_ids, low, high, wanted, largest, temperature, BY_MASS: tl.constexpr,
    BLOCK: tl.constexpr, PIVOTS: tl.constexpr,
):  # fmt: skip
    """The largest key, or one that keeps the same, from which on there are `wanted` logits, or that
    part of the mass from `low` on. No logit has a key from `high` on.
    """
    lane = tl.arange(0, PIVOTS).to(tl.int64)
    total = tl.full((), -1.0, tl.float64)
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


@triton.jit(do_not_specialize=COUNTS)
def _threshold_kernel(
    logits_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    largest_ptr,  # [M] float32; inf where there is NaN
    least_ptr,  # [M] float32: of the logits that top-k and top-p keep; -inf where neither asks
    num_nodes,
    num_ids,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    PIVOTS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits = logits_ptr + row * num_ids
    lane = tl.arange(0, WIDE)
    most = tl.full((WIDE,), float("-inf"), tl.float32)
    for start in range(0, num_ids, WIDE):
        x = _load(logits, start + lane, num_ids)
        most = tl.maximum(most, tl.where(x == x, x, float("inf")))
    largest = tl.max(most, axis=0)
    tl.store(largest_ptr + row, largest)
    least = tl.full((), float("-inf"), tl.float32)
    temperature = tl.load(temperature_ptr + row // num_nodes)
    top_k = tl.load(top_k_ptr + row // num_nodes)
    top_p = tl.load(top_p_ptr + row // num_nodes)
    few = (top_k > 0) & (top_k < num_ids)
    if (temperature > 0) & (tl.abs(largest) < float("inf")) & (few | (top_p < 1)):
        best = largest.to(tl.float64)
        low, high = _key(least).to(tl.int64), _key(largest).to(tl.int64) + 1
        if few:
            low = _search(
                logits, num_ids, low, high, top_k, best, temperature, False, BLOCK, PIVOTS
            )
        if top_p < 1:
            low = _search(logits, num_ids, low, high, top_p, best, temperature, True, BLOCK, PIVOTS)
        kept = tl.full((WIDE,), float("inf"), tl.float32)
        for start in range(0, num_ids, WIDE):
            x = _load(logits, start + lane, num_ids)
            kept = tl.minimum(kept, tl.where(_key(x) >= low, x, float("inf")))
        least = tl.min(kept, axis=0)
    tl.store(least_ptr + row, least)


@triton.jit
def _noise(seed, position, sequence, token):
    """Gumbel numbers of tokens, float64."""
    none = tl.zeros_like(token)
    high, low, _, _ = tl.philox(
        seed, none + (position.to(tl.int64) + 1).to(tl.int32), none + sequence.to(tl.int32),
        none + PURPOSE, token,
    )  # fmt: skip
    number = ((high >> 5).to(tl.int64) << 26) | (low >> 6).to(tl.int64) | 1
    return -tl.log(-tl.log(number.to(tl.float64) * UNIT))


@triton.jit(do_not_specialize=COUNTS)
def _race_kernel(
    logits_ptr,
    ids_ptr,  # None: columns are tokens
    positions_ptr,
    temperature_ptr,
    min_p_ptr,
    seed_ptr,
    sequence_ptr,
    largest_ptr,
    least_ptr,
    top_ptr,  # [M, tiles, K] float64: largest scores of the tile, in descending order
    token_ptr,  # [M, tiles, K] int32: whose they are; -1 in a row without finite logits
    mass_ptr,  # [M, tiles] float64: sum of exp(score - largest)
    num_nodes,
    num_ids,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tile * BLOCK + tl.arange(0, BLOCK)
    known, token = column < num_ids, column
    if ids_ptr is not None:
        token = tl.load(ids_ptr + column, mask=known, other=0)
    largest = tl.load(largest_ptr + row)
    sequence = row // num_nodes
    temperature = tl.load(temperature_ptr + sequence)
    scores = tl.full((BLOCK,), LOWEST, tl.float64)
    if tl.abs(largest) < float("inf"):
        best = largest.to(tl.float64)
        scores = _load(logits_ptr + row * num_ids, column, num_ids).to(tl.float64) - best
        if temperature > 0:
            scores /= temperature
            kept = scores >= (tl.load(least_ptr + row).to(tl.float64) - best) / temperature
            min_p = tl.load(min_p_ptr + sequence)
            if min_p > 0:
                kept &= tl.exp(scores) >= min_p
            if tl.max((kept & known).to(tl.int32), axis=0) > 0:  # else no number has a say
                scores += _noise(
                    tl.load(seed_ptr + sequence), tl.load(positions_ptr + row),
                    tl.load(sequence_ptr + sequence), token,
                )  # fmt: skip
            scores = tl.where(kept, scores, LOWEST)
        scores = tl.maximum(scores, LOWEST)
    else:
        token = tl.full((BLOCK,), -1, tl.int32)
    scores = tl.where(known, scores, float("-inf"))
    place = row + tl.zeros((1,), tl.int64)
    keep_best(
        scores[None, :], token, place * tl.num_programs(1) + tile, place >= 0, top_ptr, token_ptr,
        mass_ptr, LOWEST, K,
    )  # fmt: skip


def draw_tokens(
    logits: Tensor,
    draws: Draws,
    positions: Tensor,
    k: int = 1,
    *,
    token_ids: Tensor | None = None,
    chain: DraftChain | None = None,
) -> tuple[Tensor, Tensor]:
    require_drawn(logits, draws, positions, k, token_ids)
    require_chain(chain, logits)
    batch, num_nodes, num_ids = logits.shape
    num_rows, num_tiles = batch * num_nodes, triton.cdiv(num_ids, BLOCK)
    top = logits.new_empty(batch, num_nodes, num_tiles, k, dtype=torch.float64)
    token = logits.new_empty(batch, num_nodes, num_tiles, k, dtype=torch.int32)
    mass = logits.new_empty(batch, num_nodes, num_tiles, dtype=torch.float64)
    largest, least = logits.new_empty(num_rows), logits.new_empty(num_rows)
    if num_rows > 0:
        _threshold_kernel[(num_rows,)](
            logits, draws.temperature, draws.top_k, draws.top_p, largest, least, num_nodes, num_ids,
            WIDE=WIDE, BLOCK=SEARCHED, PIVOTS=PIVOTS, num_warps=16, enable_fp_fusion=True,
        )  # fmt: skip
        _race_kernel[(num_rows, num_tiles)](
            logits, token_ids, positions, draws.temperature, draws.min_p, draws.seed,
            draws.sequence, largest, least, top, token, mass, num_nodes, num_ids, K=k, BLOCK=BLOCK,
            num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
    return merge_best(top, token, mass, LAST_TOKEN, chain)


def require_drawn(
    logits: Tensor, draws: Draws, positions: Tensor, k: int, token_ids: Tensor | None
) -> None:
    """Refuse what the kernels cannot read: ValueError names argument, expected and got."""
    batch, num_nodes, num_ids = sizes("logits", logits, 3)
    require("logits", logits, None, torch.float32, logits.device)
    require("positions", positions, (batch, num_nodes), torch.int32, logits.device)
    require_within("positions", positions, 0, LAST_TOKEN)
    require_draws(draws, batch, logits.device)
    if token_ids is not None:
        require("token_ids", token_ids, (num_ids,), torch.int32, logits.device)
        require_within("token_ids", token_ids, 0, LAST_TOKEN + 1)
        require_increasing("token_ids", token_ids)
    if not 1 <= k <= min(MAX_K, num_ids):
        raise ValueError(f"k: expected 1 to {min(MAX_K, num_ids)}, got {k}")
