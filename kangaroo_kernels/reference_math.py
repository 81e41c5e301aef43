"""Maths shared, unchanged, by several reference implementations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Library GEMMs choose their order of summation by the number of rows: always multiply this many.
ROW_TILE = 16


def tiled_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T in tiles of exactly ROW_TILE rows: [M, C], [O, C] -> [M, O]. A row's bits are its
    own.
    """
    if len(weight) < ROW_TILE:  # in so narrow a product libraries sum some rows in another order
        return tiled_linear(x, F.pad(weight, (0, 0, 0, ROW_TILE - len(weight))))[:, : len(weight)]
    padded = F.pad(x, (0, 0, 0, -len(x) % ROW_TILE))
    return torch.cat([F.linear(tile, weight) for tile in padded.split(ROW_TILE)])[: len(x)]


def rms_normalize(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, statistics in float32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight
