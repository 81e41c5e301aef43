"""copy_draft: a text in which the last three tokens have never stood, read to its beginning."""

from collections.abc import Iterator

import torch

from benchmarks.harness import Case, Setting
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.verify_tree import Verdict

NODES = 16


def cases(setting: Setting) -> Iterator[Case]:
    for num_tokens in (1024, 8192, 32768):
        device, i32 = setting.device, torch.int32
        trees, one = DraftTrees.of_roots(1, NODES, 0.0, device), torch.ones(1, dtype=i32)
        trees.nodes.tokens[:, 0] = num_tokens
        path, bonus = torch.zeros(1, NODES, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        text, counts = torch.arange(num_tokens, dtype=i32)[None], (one * (num_tokens - 1), 0 * one)
        yield Case(
            name=f"{num_tokens} tokens",
            shape={"S": num_tokens, "N": NODES, "size": 3},
            num_bytes=4 * num_tokens,
            data=(text, path, one, bonus, *trees.nodes, trees.parents, trees.ancestors, *counts),
            run=lambda op, text, path, length, bonus, *rest: op(
                text,
                Verdict(path, length, bonus),
                DraftTrees(DraftChain(*rest[:5]), *rest[5:7]),
                *rest[7:],
                size=3,
                count=NODES - 1,
            ),
        )
