"""Definition of copy_draft, in plain Python on rows of tensors. Any device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.verify_tree import Verdict


def unsupported(target: Target) -> str | None:
    return None


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
    nodes, parents, ancestors = trees
    node = torch.arange(1 + count, device=text.device)
    chain = (torch.ones_like(node) << node).cumsum(0)
    found.zero_()
    for b, (root, stopped) in enumerate(
        zip(cache_seqlens.tolist(), nodes.stopped.tolist(), strict=True)
    ):
        if stopped:
            continue
        path = verdict.path[b, 1 : int(verdict.path_len[b])]
        text[b, root - len(path) : root] = nodes.tokens[b, path].int()
        text[b, root] = nodes.tokens[b, 0].int()
        copy = continuation(text[b, : root + 1].tolist(), size, count)
        if copy:
            nodes.tokens[b, 1 : 1 + count] = torch.tensor(copy)
            nodes.positions[b, : 1 + count] = root + node
            parents[b, : 1 + count], ancestors[b, : 1 + count] = node - 1, chain
            nodes.num_nodes[b], nodes.stopped[b], found[b] = 1 + count, 1, 1


def continuation(tokens: Sequence[int], size: int, count: int) -> list[int]:
    """`count` tokens that followed where the last `size` have stood last; [] where they never
    have.
    """
    for end in range(len(tokens) - 1, size - 1, -1):
        if tokens[end - size : end] == tokens[-size:]:
            return [tokens[end + n % (len(tokens) - end)] for n in range(count)]
    return []
