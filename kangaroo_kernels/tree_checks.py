"""Checks in front of a launch of ops that keep chains and trees of drafts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kangaroo_kernels.checks import require, require_bounds, require_within, sizes
from kangaroo_kernels.draft_head import MAX_K, DraftChain
from kangaroo_kernels.draft_trees import DraftTrees, Seedbed
from kangaroo_kernels.nodes import MAX_TREE_NODES
from kangaroo_kernels.verify_tree import Verdict


def require_chain(chain: DraftChain | None, h: Tensor) -> None:
    """One chain for each sequence of `h` [B, N, C]; N is at least 1."""
    if chain is None:
        return
    batch, num_nodes, _ = h.shape
    if num_nodes == 0:
        raise ValueError("h: expected at least one node to append behind, got none")
    at = (batch, sizes("chain.tokens", chain.tokens, 2)[1])
    require("chain.tokens", chain.tokens, at, torch.int64, h.device)
    require("chain.positions", chain.positions, at, torch.int32, h.device)
    require("chain.num_nodes", chain.num_nodes, (batch,), torch.int32, h.device)
    require("chain.stopped", chain.stopped, (batch,), torch.int32, h.device)
    require("chain.threshold", chain.threshold, (batch,), torch.float32, h.device)


def require_trees(trees: DraftTrees, h: Tensor) -> None:
    """One tree for each sequence of `h` [B, N, C]; N is at least 1."""
    require_chain(trees.nodes, h)
    for name, tensor in (("parents", trees.parents), ("ancestors", trees.ancestors)):
        require(f"trees.{name}", tensor, trees.nodes.tokens.shape, torch.int64, h.device)


def require_copy(
    text: Tensor,
    verdict: Verdict,
    trees: DraftTrees,
    counts: tuple[Tensor, Tensor],
    size: int,
    count: int,
) -> None:
    """Arguments of copy_draft, `counts` its `cache_seqlens` and `found`."""
    batch, device, i32 = sizes("text", text, 2)[0], text.device, torch.int32
    num_nodes = sizes("trees.nodes.tokens", trees.nodes.tokens, 2)[1]
    require("text", text, None, i32, device)
    require_trees(trees, text[:, :, None])
    require("path", verdict.path, (batch, num_nodes), torch.int64, device)
    require("path_len", verdict.path_len, (batch,), i32, device)
    for name, tensor in zip(("cache_seqlens", "found"), counts, strict=True):
        require(name, tensor, (batch,), i32, device)
    bounds = {
        "num_nodes": (num_nodes, 1, MAX_TREE_NODES),
        "size": (size, 1, text.shape[1]),
        "count": (count, 1, num_nodes - 1),
    }
    require_bounds(bounds)


def require_growth(
    tokens: Tensor,
    probabilities: Tensor,
    seedbed: Seedbed,
    trees: DraftTrees,
    rule: tuple[int, int, int, int, float],
) -> tuple[int, int]:
    """Arguments of grow_tree, `rule` its numbers in their order; returns P and K."""
    batch, num_new, k = sizes("tokens", tokens, 3)
    num_places = sizes("seedbed.tokens", seedbed.tokens, 2)[1]
    num_nodes = sizes("trees.nodes.tokens", trees.nodes.tokens, 2)[1]
    device, i64, f64 = tokens.device, torch.int64, torch.float64
    require("tokens", tokens, (batch, num_new, k), i64, device)
    require("probabilities", probabilities, (batch, num_new, k), torch.float32, device)
    dtypes = (i64, torch.int32, i64, i64, f64, torch.int32, i64, f64)
    for name, tensor, dtype in zip(Seedbed._fields, seedbed, dtypes, strict=True):
        more = (k,) if name in ("candidates", "waiting") else ()
        require(f"seedbed.{name}", tensor, (batch, num_places, *more), dtype, device)
    require_trees(trees, tokens)
    max_nodes, first, width, passes_left, sharpness = rule
    bounds = {
        "k": (k, 1, MAX_K),
        "nodes": (num_nodes, 1, MAX_TREE_NODES),
        "max_nodes": (max_nodes, 1, num_nodes),
        "places": (num_places, 1, MAX_TREE_NODES),
        "first": (first, 0, num_places - num_new),
        "width": (width, 0, num_places - num_new - first),
        "passes_left": (passes_left, 1, MAX_TREE_NODES),
        "newest nodes": (num_new, 1, num_places if first else 1),
    }
    require_bounds(bounds)
    if not 0 < sharpness < math.inf:
        raise ValueError(f"sharpness: expected more than 0, got {sharpness}")
    return num_places, k


def require_verification(
    logits: Tensor,
    trees: tuple[Tensor, Tensor],
    num_nodes: Tensor | None,
    successors: Tensor | None,
    choices: Tensor | None,
) -> tuple[int, int, int]:
    """Arguments of verify_tree, `trees` its tokens and parents; returns B, N and V."""
    batch, width, vocab = shape = sizes("logits", logits, 3)
    if width < 1 or vocab < 1:
        raise ValueError(f"logits: expected a root and a vocabulary, got {list(shape)}")
    require("logits", logits, shape, logits.dtype, logits.device)
    if num_nodes is not None:
        require("num_nodes", num_nodes, (batch,), torch.int32, logits.device)
    names = ("tokens", "parents", "successors", "choices")
    for name, tensor in zip(names, (*trees, successors, choices), strict=True):
        if tensor is not None:
            require(name, tensor, (batch, width), torch.int64, logits.device)
    if choices is not None:
        require_within("choices", choices, -1, vocab)
    return batch, width, vocab


def verdict_like(tokens: Tensor, out: Verdict | None) -> Verdict:
    """`out` where it is given, else a new verdict on trees of `tokens` [B, N]."""
    batch = len(tokens)
    if out is None:
        path_len = tokens.new_empty(batch, dtype=torch.int32)
        return Verdict(torch.empty_like(tokens), path_len, tokens.new_empty(batch))
    require("out.path", out.path, tokens.shape, torch.int64, tokens.device)
    require("out.path_len", out.path_len, (batch,), torch.int32, tokens.device)
    require("out.bonus", out.bonus, (batch,), torch.int64, tokens.device)
    return out
