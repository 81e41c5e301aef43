"""Memory of the host for weights, in pages of 2 MB where the system has them.

A forward pass walks through all weights, and the processor's table of 4 kB pages holds a few
megabytes: every page of the rest is looked up anew, and no prefetcher crosses its end.
"""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20  # of address space; memory is taken as it is written
ALIGNMENT = 64


class HugePages:
    """Hands out tensors one behind the other; each keeps its chunk alive."""

    def __init__(self) -> None:
        self._chunk: mmap.mmap | None = None
        self._used = self._size = 0

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor on the host: of zeros, but not to be counted on."""
        count = math.prod(shape)
        num_bytes = -(-count * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        if count == 0 or not hasattr(mmap, "MADV_HUGEPAGE"):
            return torch.empty(shape, dtype=dtype)
        if self._chunk is None or self._used + num_bytes > self._size:
            self._size, self._used = max(CHUNK_BYTES, num_bytes), 0
            self._chunk = mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._chunk.madvise(mmap.MADV_HUGEPAGE)
        start, self._used = self._used, self._used + num_bytes
        return torch.frombuffer(self._chunk, dtype=dtype, count=count, offset=start).view(shape)
