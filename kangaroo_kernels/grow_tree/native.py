"""grow_tree in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import require_growth
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
    rule = first, width, passes_left, sharpness
    num_places, max_nodes, k = require_growth(tokens, probabilities, seedbed, trees, rule)
    batch, num_new, _ = tokens.shape
    C.grow_tree(
        address("tokens", tokens, None, torch.int64),
        probabilities.data_ptr(),
        (*(tensor.data_ptr() for tensor in seedbed), num_places),
        (
            (*(tensor.data_ptr() for tensor in trees.nodes), batch, max_nodes),
            trees.parents.data_ptr(),
            trees.ancestors.data_ptr(),
        ),
        num_new,
        k,
        rule,
    )
