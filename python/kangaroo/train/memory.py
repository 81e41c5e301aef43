"""The C allocator's habits: an opt-in for processes that do nothing but train."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> None:
    """Tell glibc not to return freed memory: page faults of activations cost half of a CPU step."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD, bytes
        libc.mallopt(-1, 1 << 34 if sys.maxsize > 1 << 32 else 1 << 30)  # M_TRIM_THRESHOLD, bytes
