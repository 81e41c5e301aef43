"""Definition of verify_tree, in plain PyTorch. Any device."""

import torch
from torch import Tensor

from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.verify_tree import Verdict


def unsupported(target: Target) -> str | None:
    return None


def verify_tree(logits: Tensor, tokens: Tensor, parents: Tensor) -> Verdict:
    choices = logits.float().argmax(-1).tolist()
    paths, bonus = [], []
    for choice, token, parent in zip(choices, tokens.tolist(), parents.tolist(), strict=True):
        walked = [0]
        for node in range(1, len(token)):  # parents come first, so one pass in order walks the tree
            if parent[node] == walked[-1] and token[node] == choice[walked[-1]]:
                walked.append(node)
        paths.append(walked + [-1] * (len(token) - len(walked)))
        bonus.append(choice[walked[-1]])
    path = torch.tensor(paths, device=logits.device)
    return Verdict(
        path, (path >= 0).sum(-1, dtype=torch.int32), torch.tensor(bonus, device=logits.device)
    )
