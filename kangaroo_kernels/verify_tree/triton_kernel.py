"""verify_tree in Triton: argmax of every node by tiles, unless choices are given, then one program
per sequence walks.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.tree_checks import require_verification, verdict_like
from kangaroo_kernels.triton_math import (
    COUNTS,
    DTYPES,
    after_previous,
    launching,
    pad_to_power_of_2,
    unsupported,
)
from kangaroo_kernels.verify_tree import Verdict

__all__ = ["unsupported", "verify_tree"]

BLOCK_V = 4096


@triton.jit(do_not_specialize=COUNTS)
def _argmax_kernel(logits_ptr, top_ptr, token_ptr, vocab, BLOCK_V: tl.constexpr):
    after_previous()
    row = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    token = tile * BLOCK_V + tl.arange(0, BLOCK_V)
    logits = tl.load(logits_ptr + row * vocab + token, mask=token < vocab, other=float("-inf"))
    logits = logits.to(tl.float32)
    logits = tl.where(logits == logits, logits, float("inf"))  # either ends the walk
    place = row * tl.num_programs(1) + tile
    tl.store(top_ptr + place, tl.max(logits, axis=0))
    tl.store(token_ptr + place, tile * BLOCK_V + tl.argmax(logits, axis=0))


@triton.jit(do_not_specialize=COUNTS)
def _walk_kernel(
    top_ptr,  # None: choices are given
    choice_ptr,  # [B, N, tiles] int32, or [B, N] int64 that are given
    tokens_ptr,
    parents_ptr,
    tree_sizes_ptr,  # None: all of num_nodes
    path_ptr,
    path_len_ptr,
    bonus_ptr,
    successors_ptr,  # None: not wanted
    num_nodes,
    num_tiles,
    vocab,
    BLOCK: tl.constexpr,
):
    """Parents come before their children, so one pass in order walks the tree."""
    after_previous()
    sequence = tl.program_id(0).to(tl.int64)
    tile = tl.arange(0, BLOCK)
    last = tl.zeros((), tl.int64)
    length = tl.full((), 1, tl.int32)
    choice = _choice(top_ptr, choice_ptr, sequence * num_nodes, tile, num_tiles, vocab)
    tl.store(path_ptr + sequence * num_nodes, last)
    if successors_ptr is not None:
        tl.store(successors_ptr + sequence * num_nodes, tl.maximum(choice, 0))
    tree_size = num_nodes
    if tree_sizes_ptr is not None:
        tree_size = tl.load(tree_sizes_ptr + sequence)
    for node in range(1, num_nodes):
        place = sequence * num_nodes + node
        tl.store(path_ptr + place, tl.full((), -1, tl.int64))
        if successors_ptr is not None:
            tl.store(successors_ptr + place, tl.zeros((), tl.int64))
        parent = tl.load(parents_ptr + place)
        token = tl.load(tokens_ptr + place)
        if (node < tree_size) & (parent == last) & (token == choice) & (choice >= 0):
            last = tl.full((), 0, tl.int64) + node
            tl.store(path_ptr + sequence * num_nodes + length, last)
            length += 1
            choice = _choice(top_ptr, choice_ptr, place, tile, num_tiles, vocab)
            if successors_ptr is not None:
                tl.store(successors_ptr + place, tl.maximum(choice, 0))
    tl.store(path_len_ptr + sequence, length)
    tl.store(bonus_ptr + sequence, choice)


@triton.jit
def _choice(top_ptr, choice_ptr, row, tile, num_tiles, vocab):
    """The lowest id of the highest logit; -1 where that is not finite. Or what is given."""
    if top_ptr is None:
        choice = tl.load(choice_ptr + row)
    else:
        at, live = row * num_tiles + tile, tile < num_tiles
        top = tl.load(top_ptr + at, mask=live, other=float("-inf"))
        best = tl.max(top, axis=0)
        token = tl.load(choice_ptr + at, mask=live & (top == best), other=vocab - 1)
        choice = tl.where(tl.abs(best) < float("inf"), tl.min(token, axis=0), -1).to(tl.int64)
    return choice


def verify_tree(
    logits: Tensor,
    tokens: Tensor,
    parents: Tensor,
    num_nodes: Tensor | None = None,
    *,
    out: Verdict | None = None,
    successors: Tensor | None = None,
    choices: Tensor | None = None,
) -> Verdict:
    if logits.dtype not in DTYPES:
        raise ValueError(f"logits: expected one of {DTYPES}, got {logits.dtype}")
    trees = tokens, parents
    batch, width, vocab = require_verification(logits, trees, num_nodes, successors, choices)
    verdict = verdict_like(tokens, out)
    num_tiles, top, choice = triton.cdiv(vocab, BLOCK_V), None, choices
    if choices is None:
        top = logits.new_empty(batch * width, num_tiles, dtype=torch.float32)
        choice = logits.new_empty(batch * width, num_tiles, dtype=torch.int32)
        _argmax_kernel[(batch * width, num_tiles)](
            logits, top, choice, vocab, BLOCK_V=BLOCK_V, num_warps=4, **launching()
        )
    _walk_kernel[(batch,)](
        top, choice, tokens, parents, num_nodes, *verdict, successors, width, num_tiles, vocab,
        BLOCK=pad_to_power_of_2(num_tiles), num_warps=1, **launching(),
    )  # fmt: skip
    return verdict
