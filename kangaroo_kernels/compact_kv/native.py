"""compact_kv in C++ on the CPU: all caches in one call."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, number_of, unsupported

__all__ = ["compact_kv", "unsupported"]


def compact_kv(
    caches: Sequence[Tensor], path: Tensor, path_len: Tensor, cache_seqlens: Tensor
) -> None:
    batch, path_stride = sizes("path", path, 2)
    described = []
    for cache in caches:
        planes, _, heads, num_slots, width = sizes("cache", cache, 5)
        shape = (planes, batch, heads, num_slots, width)
        described.append((address("cache", cache, shape, caches[0].dtype), *shape[:1], *shape[2:]))
    C.compact_kv(
        number_of("cache", caches[0]) if caches else 0,
        described,
        address("path", path, None, torch.int64),
        address("path_len", path_len, (batch,), torch.int32),
        address("cache_seqlens", cache_seqlens, (batch,), torch.int32),
        batch,
        path_stride,
    )
