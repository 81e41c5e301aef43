"""compact_kv in Triton: one launch for up to four caches."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.checks import require, require_planes, require_within, sizes
from kangaroo_kernels.triton_math import (
    COUNTS,
    after_previous,
    launching,
    pad_to_power_of_2,
    unsupported,
)

__all__ = ["compact_kv", "unsupported"]

PER_LAUNCH = 4  # caches
BLOCK_W = 128
AS_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@triton.jit(do_not_specialize=COUNTS)
def _compact_kv_kernel(
    cache0,
    cache1,
    cache2,
    cache3,
    path_ptr,
    path_len_ptr,
    seqlens_ptr,
    path_stride,
    batch,
    stop0,  # programs of cache 0 are [0, stop0), of cache 1 [stop0, stop1) and so on
    stop1,
    stop2,
    heads0,
    heads1,
    heads2,
    heads3,
    slots0,
    slots1,
    slots2,
    slots3,
    plane0,  # elements from one plane to the next
    plane1,
    plane2,
    plane3,
    width0: tl.constexpr,
    width1: tl.constexpr,
    width2: tl.constexpr,
    width3: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    after_previous()
    unit = tl.program_id(0)
    paths = (path_ptr, path_len_ptr, seqlens_ptr, path_stride, batch)
    if unit < stop0:
        _move(cache0, unit, heads0, slots0, plane0, width0, paths, BLOCK_J, BLOCK_W)
    elif unit < stop1:
        _move(cache1, unit - stop0, heads1, slots1, plane1, width1, paths, BLOCK_J, BLOCK_W)
    elif unit < stop2:
        _move(cache2, unit - stop1, heads2, slots2, plane2, width2, paths, BLOCK_J, BLOCK_W)
    else:
        _move(cache3, unit - stop2, heads3, slots3, plane3, width3, paths, BLOCK_J, BLOCK_W)


@triton.jit
def _move(
    cache,
    unit,
    heads,
    num_slots,
    plane_stride,
    width: tl.constexpr,
    paths,
    BLOCK_J: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """BLOCK_W columns of one head of one sequence: every row is read before any is written."""
    path_ptr, path_len_ptr, seqlens_ptr, path_stride, batch = paths
    TILES: tl.constexpr = (width + BLOCK_W - 1) // BLOCK_W
    row = unit // TILES % (batch * heads)
    plane = unit // TILES // (batch * heads)
    sequence = row // heads
    first = tl.load(seqlens_ptr + sequence).to(tl.int64)
    length = tl.minimum(tl.load(path_len_ptr + sequence), path_stride)
    step = tl.arange(0, BLOCK_J)
    node = tl.load(path_ptr + sequence * path_stride + step, mask=step < length, other=0)
    last = first + node  # a place in the cache, or nothing moves: memory stays whole
    moves = (step < length) & (node > step) & (last >= node) & (last < num_slots)
    column = unit % TILES * BLOCK_W + tl.arange(0, BLOCK_W)
    mask = moves[:, None] & (column < width)[None, :]
    start = plane.to(tl.int64) * plane_stride + row.to(tl.int64) * num_slots * width
    place = start + (first + step)[:, None] * width + column[None, :]
    kept = tl.load(cache + place + (node - step)[:, None] * width, mask=mask)
    tl.debug_barrier()  # another thread's source may be this thread's destination
    tl.store(cache + place, kept, mask=mask)


def compact_kv(
    caches: Sequence[Tensor], path: Tensor, path_len: Tensor, cache_seqlens: Tensor
) -> None:
    batch, path_stride = sizes("path", path, 2)
    require("path", path, (batch, path_stride), torch.int64, path.device)
    require("path_len", path_len, (batch,), torch.int32, path.device)
    require("cache_seqlens", cache_seqlens, (batch,), torch.int32, path.device)
    for cache in caches:
        require_planes("cache", cache, batch, cache.dtype, path.device)
    require_paths(path, path_len, cache_seqlens, min((c.shape[3] for c in caches), default=0))
    moved = [c.view(AS_INTEGERS[c.element_size()]) for c in caches if c.numel()]
    for start in range(0, len(moved), PER_LAUNCH):
        _launch(moved[start : start + PER_LAUNCH], path, path_len, cache_seqlens)


def _launch(
    caches: Sequence[Tensor], path: Tensor, path_len: Tensor, cache_seqlens: Tensor
) -> None:
    batch, path_stride = path.shape
    units = [c.shape[:3].numel() * triton.cdiv(c.shape[4], BLOCK_W) for c in caches]
    stops = [sum(units[: n + 1]) for n in range(PER_LAUNCH - 1)]
    four = [*caches, *[caches[-1]] * (PER_LAUNCH - len(caches))]
    heads, slots, widths = ([c.shape[axis] for c in four] for axis in (2, 3, 4))
    planes = [c.stride(0) for c in four]
    _compact_kv_kernel[(sum(units),)](
        *four, path, path_len, cache_seqlens, path_stride, batch,
        *stops, *heads, *slots, *planes, *widths,
        BLOCK_J=pad_to_power_of_2(path_stride), BLOCK_W=BLOCK_W, num_warps=4,
        **launching(),
    )  # fmt: skip


def require_paths(path: Tensor, path_len: Tensor, cache_seqlens: Tensor, num_slots: int) -> None:
    """What the host can see: paths strictly increasing from node 0, and inside every cache."""
    if not path.is_cpu or num_slots == 0:
        return
    require_within("path_len", path_len, 1, path.shape[1] + 1)
    require_within("cache_seqlens", cache_seqlens, 0, num_slots)
    for nodes, length, committed in zip(
        path.tolist(), path_len.tolist(), cache_seqlens.tolist(), strict=True
    ):
        kept = nodes[:length]
        if kept != sorted(set(kept)) or kept[0] < 0:
            raise ValueError(f"path: expected strictly increasing nodes, got {kept}")
        if committed + kept[-1] >= num_slots:
            raise ValueError(
                f"path: expected slots below {num_slots}, got {committed} + {kept[-1]}"
            )
