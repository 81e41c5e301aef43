"""grow_tree in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.draft_trees import DraftTrees, Seedbed
from kangaroo_kernels.native import C, address, trees_address, unsupported
from kangaroo_kernels.tree_checks import require_growth

__all__ = ["grow_tree", "unsupported"]


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
    C.grow_tree(
        address("tokens", tokens, None, torch.int64),
        probabilities.data_ptr(),
        (*(tensor.data_ptr() for tensor in seedbed), num_places),
        trees_address(trees),
        tokens.shape[1],
        k,
        rule,
    )
