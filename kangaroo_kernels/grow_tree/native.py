"""grow_tree in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import require_chain, sizes
from kangaroo_kernels.draft_trees import DraftTrees, Seedbed
from kangaroo_kernels.native import C, address, unsupported

__all__ = ["grow_tree", "unsupported"]


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
    batch, newest, k = new = sizes("tokens", tokens, 3)
    num_places = sizes("seedbed.tokens", seedbed.tokens, 2)[1]
    require_chain(trees.nodes, tokens)
    C.grow_tree(
        address("tokens", tokens, None, torch.int64),
        address("probabilities", probabilities, new, torch.float32),
        (*_seedbed_address(seedbed, (batch, num_places), k), num_places),
        (
            (*(tensor.data_ptr() for tensor in trees.nodes), *trees.nodes.tokens.shape),
            address("trees.parents", trees.parents, trees.nodes.tokens.shape, torch.int64),
            address("trees.ancestors", trees.ancestors, trees.nodes.tokens.shape, torch.int64),
        ),
        newest,
        k,
        (first, width, passes_left, sharpness),
    )


def _seedbed_address(seedbed: Seedbed, at: tuple[int, int], k: int) -> tuple[int, ...]:
    """Of all its tensors, in their order; for places `at` [B, P]."""
    i32, i64, f64 = torch.int32, torch.int64, torch.float64
    behind = (*at, k)
    return (
        address("seedbed.tokens", seedbed.tokens, at, i64),
        address("seedbed.positions", seedbed.positions, at, i32),
        address("seedbed.parents", seedbed.parents, at, i64),
        address("seedbed.ancestors", seedbed.ancestors, at, i64),
        address("seedbed.paths", seedbed.paths, at, f64),
        address("seedbed.sure", seedbed.sure, at, i32),
        address("seedbed.candidates", seedbed.candidates, behind, i64),
        address("seedbed.waiting", seedbed.waiting, behind, f64),
    )
