"""Definition of commit_path, in plain PyTorch. Any device."""

import torch
from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.nodes import SlotPlaces
from kangaroo_kernels.verify_tree import Verdict


def unsupported(target: Target) -> str | None:
    return None


def commit_path(
    verdict: Verdict,
    chain: DraftChain,
    exit_states: Tensor,
    places: tuple[SlotPlaces, SlotPlaces],
    done: Tensor,
    *,
    lag: int,
    limit: int,
) -> None:
    target, own = places
    for b, (length, finished) in enumerate(
        zip(verdict.path_len.tolist(), done.tolist(), strict=True)
    ):
        if finished:
            continue
        root = min(int(target.cache_seqlens[b]) + length, limit)
        exit_states[b, 0] = exit_states[b, 1 + verdict.path[b, length - 1]]
        for where, start in ((target, root), (own, max(root - lag, 0))):
            where.cache_seqlens[b] = start
            torch.arange(start, start + where.positions.shape[1], out=where.positions[b])
        chain.tokens[b, 0] = verdict.bonus[b].clamp(min=0)
        chain.positions[b, 0] = root
