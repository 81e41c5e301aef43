"""How much is decoded at once, and whether there is room for it."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

import torch

from benchmarks.subjects import Subject
from kangaroo.config import MAX_TREE_NODES

WARM_UP = 3  # rounds
HEADROOM = 0.9  # of the memory that is free: activations and graphs need some


@dataclass(frozen=True)
class Case:
    """How much is decoded at once.

    Attributes:
        depth: draft tokens of every round; no confidence stops them.
        repeats: samples of every step.
    """

    context: int
    batch: int
    depth: int
    repeats: int

    @property
    def num_slots(self) -> int:
        """Tokens that a sequence may grow to while it is timed."""
        return self.context + 1 + (WARM_UP + self.repeats + 1) * (self.depth + 1)


def refusal(subject: Subject, case: Case) -> str | None:
    """Why the case cannot be timed here: the target's context, or memory; None: it can."""
    config, own = subject.model.config, subject.adapter.config
    slots = case.num_slots + MAX_TREE_NODES
    if case.num_slots > config.max_seq_len:
        return f"{case.num_slots} tokens, and the target's context is {config.max_seq_len}"
    norm = subject.model.weights.norm
    rows = config.num_layers * config.num_kv_heads * config.head_dim
    rows += own.num_kv_heads * own.head_dim
    num_sequences = 2 if case.batch == 1 else case.batch  # rounds of a stream have another's caches
    needed = 2 * rows * slots * num_sequences * norm.itemsize
    free = free_bytes(norm.device)
    if needed > HEADROOM * free:
        return f"{needed / 1e9:.1f} GB of keys and values, and {free / 1e9:.1f} GB are free"
    return None


def free_bytes(device: torch.device) -> int:
    """Memory of the device that can be had."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(device: torch.device) -> int:
    """Most memory in use: of the case on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
