"""grow_tree: the last pass of the default tree, and of the largest."""

from collections.abc import Iterator

import torch

from benchmarks.harness import Case, Setting
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draft_trees import DraftTrees, Seedbed, widths

K = 10


def cases(setting: Setting) -> Iterator[Case]:
    for max_nodes, depth in ((16, 6), (64, 8)):
        inner = widths(max_nodes, depth)
        places, last = 1 + sum(inner), inner[-1]
        device = setting.device
        bed = Seedbed.empty(1, places, K, device)
        trees = DraftTrees.of_roots(1, max_nodes, 0.0, device)
        bed.paths.copy_(torch.rand(1, places).sort(descending=True).values)
        bed.waiting.copy_(torch.rand(1, places, K))
        rows, tokens = torch.randn(1, last, 50).softmax(-1).topk(K)
        yield Case(
            name=f"{max_nodes} nodes",
            shape={"N": max_nodes, "P": places, "K": K},
            num_bytes=places * (K * 16 + 40) + max_nodes * 28,
            data=(tokens, rows, *bed, *trees.nodes, trees.parents, trees.ancestors),
            run=lambda op, tokens, rows, *rest, first=places - last, most=max_nodes: op(
                tokens,
                rows,
                Seedbed(*rest[:8]),
                DraftTrees(DraftChain(*rest[8:13]), *rest[13:]),
                max_nodes=most,
                first=first,
                width=0,
                passes_left=1,
                sharpness=1.5,
            ),
        )
