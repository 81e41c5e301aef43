"""compact_kv in C++ on the CPU: all caches in one call."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kangaroo_kernels.checks import require_planes, sizes
from kangaroo_kernels.native import CPU, C, address, number_of, unsupported

__all__ = ["compact_kv", "unsupported"]


def compact_kv(
    caches: Sequence[Tensor], path: Tensor, path_len: Tensor, cache_seqlens: Tensor
) -> None:
    batch, path_stride = sizes("path", path, 2)
    described = []
    for cache in caches:
        shape = require_planes("cache", cache, batch, caches[0].dtype, CPU)
        described.append((cache.data_ptr(), *shape))
    C.compact_kv(
        number_of("cache", caches[0]) if caches else 0,
        described,
        address("path", path, None, torch.int64),
        address("path_len", path_len, (batch,), torch.int32),
        address("cache_seqlens", cache_seqlens, (batch,), torch.int32),
        batch,
        path_stride,
    )
