"""copy_draft in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.native import C, address, trees_address, unsupported
from kangaroo_kernels.tree_checks import require_copy
from kangaroo_kernels.verify_tree import Verdict

__all__ = ["copy_draft", "unsupported"]


def copy_draft(
    text: Tensor,
    verdict: Verdict,
    trees: DraftTrees,
    cache_seqlens: Tensor,
    found: Tensor,
    *,
    size: int,
    count: int,
) -> None:
    require_copy(text, verdict, trees, (cache_seqlens, found), size, count)
    C.copy_draft(
        address("text", text, None, torch.int32),
        (verdict.path.data_ptr(), verdict.path_len.data_ptr()),
        trees_address(trees),
        cache_seqlens.data_ptr(),
        found.data_ptr(),
        (text.shape[1], size, count),
    )
