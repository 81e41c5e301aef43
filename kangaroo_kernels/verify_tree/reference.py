"""Definition of verify_tree, in plain PyTorch. Any device."""

import torch
from torch import Tensor

from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.verify_tree import Verdict


def unsupported(target: Target) -> str | None:
    return None


def verify_tree(
    logits: Tensor,
    tokens: Tensor,
    parents: Tensor,
    num_nodes: Tensor | None = None,
    *,
    out: Verdict | None = None,
    successors: Tensor | None = None,
    choices: Tensor | None = None,
) -> Verdict:
    if choices is None:
        best = logits.float().max(-1)
        choices = torch.where(best.values.isfinite(), best.indices, -1)
    counts = [tokens.shape[1]] * len(tokens) if num_nodes is None else num_nodes.tolist()
    trees = zip(choices.tolist(), tokens.tolist(), parents.tolist(), counts, strict=True)
    paths, bonus, followed = [], [], []
    for choice, token, parent, count in trees:
        walked = [0]
        for node in range(1, count):  # parents come first, so one pass in order walks the tree
            if parent[node] == walked[-1] and token[node] == choice[walked[-1]] >= 0:
                walked.append(node)
        paths.append(walked + [-1] * (len(token) - len(walked)))
        bonus.append(choice[walked[-1]])
        kept = set(walked)
        followed.append([max(c, 0) if n in kept else 0 for n, c in enumerate(choice)])
    path, last = (
        torch.tensor(paths, device=logits.device),
        torch.tensor(bonus, device=logits.device),
    )
    verdict = Verdict(path, (path >= 0).sum(-1, dtype=torch.int32), last)
    if successors is not None:
        successors.copy_(torch.tensor(followed))
    if out is None:
        return verdict
    for place, values in zip(out, verdict, strict=True):
        place.copy_(values)
    return out
