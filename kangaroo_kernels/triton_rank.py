"""The k best tokens of the vocabulary in two launches behind the norm, shared by top1_confidence,
topk_confidence and draft_step; and what draw_tokens shares with them.

A program of the first multiplies a tile of the head and keeps the tile's k best and its part of the
softmax's sum: logits live in registers only. One of the second merges the sorted lists of one row,
and appends to the row's chain of drafts.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.tree_checks import require_chain
from kangaroo_kernels.triton_head import BLOCK_V, head_steps, tile_logits
from kangaroo_kernels.triton_math import (
    COUNTS,
    ROW_TILE,
    after_previous,
    launching,
    pad_to_power_of_2,
)
from kangaroo_kernels.triton_norm import InFront

LOWEST = tl.constexpr(-3.4028234663852886e38)  # finite, in float32


@triton.jit(do_not_specialize=COUNTS)
def _score_kernel(
    h_ptr,
    squares_ptr,
    weight_ptr,
    scale_ptr,
    ids_ptr,
    top_ptr,  # [M, tiles, K] float32: largest logits of the tile, in descending order
    token_ptr,  # [M, tiles, K] int32: whose they are
    mass_ptr,  # [M, tiles] float32: sum of exp(logit - largest)
    num_rows,
    num_ids,
    eps,
    width: tl.constexpr,
    vocab: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SQUARES_BLOCK: tl.constexpr,
):
    tile = tl.program_id(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row_live = row < num_rows
    column = tile * BLOCK_V + tl.arange(0, BLOCK_V)
    logits, token, known = tile_logits(
        h_ptr, squares_ptr, weight_ptr, scale_ptr, ids_ptr, row, row_live, column, num_ids, eps,
        width, vocab, BLOCK_K, SQUARES_BLOCK,
    )  # fmt: skip
    # The lowest finite number ranks below all others, and -inf is what may not be drafted, or was.
    logits = tl.where(logits > LOWEST, logits, LOWEST)
    logits = tl.where(row_live[:, None] & known[None, :], logits, float("-inf"))
    place = row.to(tl.int64) * tl.num_programs(1) + tile
    keep_best(logits, token[None, :], place, row_live, top_ptr, token_ptr, mass_ptr, LOWEST, K)


@triton.jit
def keep_best(
    scores,
    token,
    place,
    row_live,
    top_ptr,
    token_ptr,
    mass_ptr,
    LOWEST: tl.constexpr,
    K: tl.constexpr,
):
    """The K best of scores [rows, columns], whose tokens are [rows or 1, columns], and their sum
    become the lists at `place` [rows]. -inf: there is no such token; others are LOWEST or more.
    """
    lane = tl.arange(0, scores.shape[1])
    top = tl.maximum(tl.max(scores, axis=1), LOWEST)
    mass = tl.sum(tl.exp(scores - top[:, None]), axis=1)
    tl.store(mass_ptr + place, mass, mask=row_live)
    for rank in range(K):
        best = tl.max(scores, axis=1)
        chosen = lane[None, :] == tl.argmax(scores, axis=1)[:, None]
        tl.store(top_ptr + place * K + rank, best, mask=row_live)
        best_token = tl.sum(tl.where(chosen, token, 0), axis=1)
        tl.store(token_ptr + place * K + rank, best_token, mask=row_live)
        scores = tl.where(chosen, float("-inf"), scores)


@triton.jit(do_not_specialize=COUNTS)
def _merge_kernel(
    top_ptr,
    token_ptr,
    mass_ptr,
    best_ptr,  # [M, K] int64
    confidence_ptr,  # [M, K] float32
    chain_tokens_ptr,
    chain_positions_ptr,
    chain_num_nodes_ptr,
    chain_stopped_ptr,
    chain_threshold_ptr,
    num_tiles,
    last_token,
    num_nodes,
    capacity,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A token below 0 is none: its confidence is 0, and in a chain token 0 stands for it."""
    after_previous()
    row = tl.program_id(0).to(tl.int64)
    tile = tl.arange(0, BLOCK)
    live = tile < num_tiles
    place = row * num_tiles + tile
    top = tl.load(top_ptr + place * K, mask=live, other=float("-inf"))
    highest = tl.max(top, axis=0)
    mass = tl.load(mass_ptr + place, mask=live, other=0.0)
    total = tl.sum(mass * tl.exp(top - highest), axis=0)
    cursor = tl.zeros((BLOCK,), tl.int32)
    for rank in range(K):
        best = tl.max(top, axis=0)
        at = place * K + cursor
        token = tl.load(token_ptr + at, mask=live & (top == best), other=last_token)
        chosen = tl.min(token, axis=0)
        tl.store(best_ptr + row * K + rank, chosen.to(tl.int64))
        confidence = tl.where(chosen < 0, 0.0, tl.exp(best - highest) / total)
        tl.store(confidence_ptr + row * K + rank, confidence)
        taken = live & (top == best) & (token == chosen)
        left = taken & (cursor + 1 < K)
        top = tl.where(taken, tl.load(top_ptr + at + 1, mask=left, other=float("-inf")), top)
        cursor += left.to(tl.int32)
        if rank == 0:
            if chain_tokens_ptr is not None:
                if row % num_nodes == num_nodes - 1:
                    _append(
                        row // num_nodes, tl.maximum(chosen, 0), confidence.to(tl.float32),
                        chain_tokens_ptr, chain_positions_ptr, chain_num_nodes_ptr,
                        chain_stopped_ptr, chain_threshold_ptr, capacity,
                    )  # fmt: skip


@triton.jit
def _append(
    sequence,
    token,
    confidence,
    tokens_ptr,
    positions_ptr,
    num_nodes_ptr,
    stopped_ptr,
    threshold_ptr,
    capacity,
):
    """The token becomes the chain's next node, unless drafting has stopped."""
    node = tl.load(num_nodes_ptr + sequence)
    stopped = tl.load(stopped_ptr + sequence)
    if stopped == 0:
        if node >= capacity:
            tl.store(stopped_ptr + sequence, 1)
        else:
            if node > 0:
                place = sequence * capacity + node
                tl.store(tokens_ptr + place, token.to(tl.int64))
                tl.store(positions_ptr + place, tl.load(positions_ptr + place - 1) + 1)
                tl.store(num_nodes_ptr + sequence, node + 1)
                threshold = tl.load(threshold_ptr + sequence)
                goes_on = (confidence >= threshold) & (node + 1 < capacity)
                tl.store(stopped_ptr + sequence, tl.where(goes_on, 0, 1))


def rank_tokens(
    rows: InFront,
    head: DraftHead,
    eps: float,
    k: int,
    chain: DraftChain | None = None,
) -> tuple[Tensor, Tensor]:
    """Of rows [B, N, C] as `in_front` makes them: the k best tokens and their probabilities, each
    [B, N, k]; the best one of the last node joins `chain`. Of these arguments, it checks `chain`.
    """
    h, squares = rows
    require_chain(chain, h)
    batch, num_nodes, width = h.shape
    num_rows, num_tiles = batch * num_nodes, triton.cdiv(head.num_ids, BLOCK_V)
    top = h.new_empty(batch, num_nodes, num_tiles, k, dtype=torch.float32)
    token = h.new_empty(batch, num_nodes, num_tiles, k, dtype=torch.int32)
    mass = h.new_empty(batch, num_nodes, num_tiles, dtype=torch.float32)
    if num_rows > 0:
        _score_kernel[(triton.cdiv(num_rows, ROW_TILE), num_tiles)](
            h, squares, *head, top, token, mass, num_rows, head.num_ids, eps, width=width,
            vocab=len(head.weight), K=k, ROWS=ROW_TILE, BLOCK_V=BLOCK_V, **head_steps(h, head),
            **launching(),
        )  # fmt: skip
    return merge_best(top, token, mass, len(head.weight) - 1, chain)


def merge_best(
    top: Tensor, token: Tensor, mass: Tensor, last_token: int, chain: DraftChain | None
) -> tuple[Tensor, Tensor]:
    """What keep_best left of tiles, top and token [B, N, tiles, K] and mass [B, N, tiles], of
    tokens up to `last_token`: the best tokens of all and their probabilities, each [B, N, K]; the
    best one of the last node joins `chain`.
    """
    batch, num_nodes, num_tiles, k = top.shape
    best = top.new_empty(batch, num_nodes, k, dtype=torch.int64)
    confidence = top.new_empty(batch, num_nodes, k, dtype=torch.float32)
    if batch * num_nodes > 0:
        _merge_kernel[(batch * num_nodes,)](
            top, token, mass, best, confidence, *(chain or [None] * 5), num_tiles, last_token,
            num_nodes, 0 if chain is None else chain.tokens.shape[1], K=k,
            BLOCK=pad_to_power_of_2(num_tiles), num_warps=8, **launching(),
        )  # fmt: skip
    return best, confidence
