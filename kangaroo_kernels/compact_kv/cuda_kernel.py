"""compact_kv in CUDA C++: all caches in one launch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kangaroo_kernels.checks import require, require_planes, sizes
from kangaroo_kernels.cuda_core import DTYPES, start_of, stream_of, unsupported
from kangaroo_kernels.native import C

__all__ = ["compact_kv", "unsupported"]

# Rows are moved, not computed with: bytes of an element -> the core's dtype, and how many it is.
MOVED_AS = {2: (torch.bfloat16, 1), 4: (torch.float32, 1), 8: (torch.float32, 2)}


def compact_kv(
    caches: Sequence[Tensor], path: Tensor, path_len: Tensor, cache_seqlens: Tensor
) -> None:
    batch, path_stride = sizes("path", path, 2)
    require("path", path, (batch, path_stride), torch.int64, path.device)
    require("path_len", path_len, (batch,), torch.int32, path.device)
    require("cache_seqlens", cache_seqlens, (batch,), torch.int32, path.device)
    described = [described_cache(cache, batch, path.device) for cache in caches]
    if not path.is_cuda:
        raise ValueError(f"path: expected a CUDA device, got {path.device}")
    with torch.cuda.device(path.device):
        C.compact_kv_cuda(
            described,
            *map(start_of, (path, path_len, cache_seqlens)),
            batch,
            path_stride,
            stream_of(path),
        )


def described_cache(
    cache: Tensor, batch: int, device: torch.device
) -> tuple[int, tuple[int, int, int, int, int, int]]:
    planes, heads, num_slots, width, stride = require_planes(
        "cache", cache, batch, cache.dtype, device
    )
    if cache.element_size() not in MOVED_AS:
        raise ValueError(f"cache: expected elements of {list(MOVED_AS)} bytes, got {cache.dtype}")
    dtype, times = MOVED_AS[cache.element_size()]
    place = start_of(cache), planes, heads, num_slots, width * times, stride * times
    return DTYPES[dtype], place
