"""draw_tokens in Triton: what a row keeps, a race in every tile, and the tiles' best merged."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.checks import (
    require,
    require_draws,
    require_increasing,
    require_within,
    sizes,
)
from kangaroo_kernels.draft_head import MAX_K, DraftChain
from kangaroo_kernels.draws import RACE, Draws
from kangaroo_kernels.tree_checks import require_chain
from kangaroo_kernels.triton_math import COUNTS, after_previous, launching, unsupported
from kangaroo_kernels.triton_rank import keep_best, merge_best
from kangaroo_kernels.triton_threshold import (
    PIVOTS,
    SEARCHED,
    WIDE,
    load_logits,
    threshold_kernel,
)

__all__ = ["draw_tokens", "unsupported"]

TILES, BLOCK = 8, 128  # of a program, and the logits of each: lists of the best are per tile
LAST_TOKEN = 2**31 - 1
LOWEST = tl.constexpr(-1.7976931348623157e308)  # finite, in float64
PURPOSE = tl.constexpr(RACE)
UNIT = tl.constexpr(2.0**-53)


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
    num_tiles,
    K: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program for TILES tiles of a row."""
    after_previous()
    row = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1) * TILES + tl.arange(0, TILES)
    column = tile[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    known, token = column < num_ids, column
    if ids_ptr is not None:
        token = tl.load(ids_ptr + column, mask=known, other=0)
    largest = tl.load(largest_ptr + row)
    sequence = row // num_nodes
    temperature = tl.load(temperature_ptr + sequence)
    scores = tl.full((TILES, BLOCK), LOWEST, tl.float64)
    if tl.abs(largest) < float("inf"):
        best = largest.to(tl.float64)
        scores = load_logits(logits_ptr + row * num_ids, column, num_ids).to(tl.float64) - best
        if temperature > 0:
            scores /= temperature
            kept = scores >= (tl.load(least_ptr + row).to(tl.float64) - best) / temperature
            min_p = tl.load(min_p_ptr + sequence)
            if min_p > 0:
                kept &= tl.exp(scores) >= min_p
            if tl.max((kept & known).to(tl.int32)) > 0:  # else no number has a say
                scores += _noise(
                    tl.load(seed_ptr + sequence), tl.load(positions_ptr + row),
                    tl.load(sequence_ptr + sequence), token,
                )  # fmt: skip
            scores = tl.where(kept, scores, LOWEST)
        scores = tl.maximum(scores, LOWEST)
    else:
        token = tl.full((TILES, BLOCK), -1, tl.int32)
    scores = tl.where(known, scores, float("-inf"))
    keep_best(
        scores, token, row * num_tiles + tile, tile < num_tiles, top_ptr, token_ptr, mass_ptr,
        LOWEST, K,
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
    scratch = logits.new_empty(num_rows, WIDE)
    if num_rows > 0:
        threshold_kernel[(num_rows,)](
            logits, draws.temperature, draws.top_k, draws.top_p, scratch, largest, least, num_nodes,
            num_ids, WIDE=WIDE, BLOCK=SEARCHED, PIVOTS=PIVOTS, num_warps=16, **launching(),
        )  # fmt: skip
        _race_kernel[(num_rows, triton.cdiv(num_tiles, TILES))](
            logits, token_ids, positions, draws.temperature, draws.min_p, draws.seed,
            draws.sequence, largest, least, top, token, mass, num_nodes, num_ids, num_tiles, K=k,
            TILES=TILES, BLOCK=BLOCK, num_warps=4, **launching(),
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
