"""copy_draft in Triton: one program per sequence looks from the end of its text to the front."""

import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.tree_checks import require_copy
from kangaroo_kernels.triton_math import (
    COUNTS,
    after_previous,
    launching,
    pad_to_power_of_2,
    unsupported,
)
from kangaroo_kernels.verify_tree import Verdict

__all__ = ["copy_draft", "unsupported"]

BLOCK = 2048  # places that are looked at at once


@triton.jit(do_not_specialize=[*COUNTS, "count"])
def _copy_draft_kernel(
    text_ptr,
    path_ptr,
    path_len_ptr,
    tokens_ptr,
    positions_ptr,
    num_nodes_ptr,
    stopped_ptr,
    parents_ptr,
    ancestors_ptr,
    seqlens_ptr,
    found_ptr,
    num_slots,
    num_nodes,
    count,
    SIZE: tl.constexpr,
    NODES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    after_previous()
    b = tl.program_id(0).to(tl.int64)
    text, tree = text_ptr + b * num_slots, b * num_nodes
    tl.store(found_ptr + b, 0)
    if tl.load(stopped_ptr + b) == 0:
        root = tl.minimum(tl.maximum(tl.load(seqlens_ptr + b), 0), num_slots - 1)  # memory's end
        node = tl.arange(0, NODES)
        length = tl.minimum(tl.load(path_len_ptr + b), num_nodes)
        slot = root - length + node
        taken = (node > 0) & (node < length) & (slot >= 0)
        source = tl.load(path_ptr + tree + node, mask=taken, other=0)
        source = tl.minimum(tl.maximum(source, 0), num_nodes - 1)
        token = tl.load(tokens_ptr + tree + source, mask=taken, other=0)
        tl.store(text + slot, token.to(tl.int32), mask=taken)
        tl.store(text + root, tl.load(tokens_ptr + tree).to(tl.int32))
        tl.debug_barrier()
        best, nearest = 0, root
        while (best == 0) & (nearest >= SIZE):
            end = nearest - tl.arange(0, BLOCK)
            same = end >= SIZE
            for back in tl.static_range(SIZE):
                there = tl.load(text + end - 1 - back, mask=end >= SIZE, other=-1)
                same &= there == tl.load(text + tl.maximum(root - back, 0))
            best = tl.max(tl.where(same, end, 0), axis=0)
            nearest -= BLOCK
        if best > 0:
            new, behind = (node > 0) & (node <= count), tl.maximum(node - 1, 0)
            copy = tl.load(text + best + behind % (root + 1 - best), mask=new, other=0)
            tl.store(tokens_ptr + tree + node, copy.to(tl.int64), mask=new)
            tl.store(positions_ptr + tree + node, root + node, mask=node <= count)
            tl.store(parents_ptr + tree + node, node.to(tl.int64) - 1, mask=node <= count)
            above = ~(tl.full((), -2, tl.int64) << node.to(tl.int64))
            tl.store(ancestors_ptr + tree + node, above, mask=node <= count)
            tl.store(num_nodes_ptr + b, 1 + count)
            tl.store(stopped_ptr + b, 1)
            tl.store(found_ptr + b, 1)


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
    nodes, num_nodes = trees.nodes, trees.parents.shape[1]
    _copy_draft_kernel[(len(text),)](
        text, verdict.path, verdict.path_len, nodes.tokens, nodes.positions, nodes.num_nodes,
        nodes.stopped, trees.parents, trees.ancestors, cache_seqlens, found, text.shape[1],
        num_nodes, count, SIZE=size, NODES=pad_to_power_of_2(num_nodes), BLOCK=BLOCK, num_warps=8,
        **launching(),
    )  # fmt: skip
