"""Checks in front of a launch, shared by all fast implementations: what they refuse, and in which
words.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from kangaroo_kernels.nodes import NodeBatch


def sizes(name: str, tensor: Tensor, rank: int) -> torch.Size:
    """The shape of `tensor`; ValueError where it has not `rank` dimensions."""
    shape = tensor.shape
    if len(shape) != rank:
        raise ValueError(f"{name}: expected {rank} dimensions, got {list(shape)}")
    return shape


def require(
    name: str,
    tensor: Tensor,
    shape: tuple[int, ...] | None,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Nothing is copied: ValueError unless `tensor` is contiguous, of this dtype, on this device,
    and of this shape (None: of any).
    """
    if (
        (shape is None or tensor.shape == shape)
        and tensor.dtype is dtype
        and tensor.is_contiguous()
        and tensor.device == device
    ):
        return
    wanted = list(tensor.shape if shape is None else shape)
    layout = "contiguous" if tensor.is_contiguous() else "strided"
    raise ValueError(
        f"{name}: expected contiguous {dtype} {wanted} on {device}, "
        f"got {layout} {tensor.dtype} {list(tensor.shape)} on {tensor.device}"
    )


def require_like(x: Tensor, shapes: Iterable[tuple[str, Tensor | None, tuple[int, ...]]]) -> None:
    """Every tensor that is there has its shape, and dtype and device of `x`."""
    for name, tensor, shape in shapes:
        if tensor is not None:
            require(name, tensor, shape, x.dtype, x.device)


def require_within(name: str, values: Tensor, least: int, limit: int) -> None:
    """All of `values` in [least, limit), where the host can see them; on a GPU kernels mask instead
    of waiting for a copy.
    """
    if not values.is_cpu or values.numel() == 0:
        return
    low, high = (int(bound) for bound in values.aminmax())
    if low < least or high >= limit:
        raise ValueError(f"{name}: expected values in [{least}, {limit}), got {low} to {high}")


def require_slots(nodes: NodeBatch, num_slots: int) -> None:
    """cache_seqlens of the right kind, and the nodes' slots inside a cache of `num_slots`."""
    batch, num_nodes = nodes.positions.shape
    seqlens, behind = nodes.cache_seqlens, nodes.first_node + num_nodes
    require("cache_seqlens", seqlens, (batch,), torch.int32, nodes.positions.device)
    require_within("cache_seqlens", seqlens, 0, num_slots - behind + 1)
