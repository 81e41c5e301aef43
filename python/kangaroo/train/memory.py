"""The C allocator's habits: an opt-in for processes that do nothing but train."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> None:
    """Tell glibc not to return freed memory: page faults of activations cost half of a CPU step."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap, not from fresh pages
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap never shrinks
