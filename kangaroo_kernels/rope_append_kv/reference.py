"""Definition of rope_append_kv, in plain PyTorch. Any device."""

import torch
from torch import Tensor

from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.reference_math import rms_normalize


def unsupported(target: Target) -> str | None:
    return None


def rotate(x: Tensor, rope: Tensor, positions: Tensor) -> Tensor:
    """x [B, N, H, D] rotated by `positions` [B, N] with `rope` [2, P, D / 2]."""
    cos, sin = rope[:, positions.long(), None]  # [B, N, 1, D / 2]
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def rope_append_kv(
    qkv: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    nodes: NodeBatch,
    rope: Tensor,
    *,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    _, h_kv, _, head_dim = k_cache.shape
    heads = qkv.unflatten(-1, (-1, head_dim))  # [B, N, H_q + 2 H_kv, D]
    q, k, v = heads.split([heads.shape[2] - 2 * h_kv, h_kv, h_kv], dim=2)
    if q_norm is not None:
        q = rms_normalize(q, q_norm, eps)
    if k_norm is not None:
        k = rms_normalize(k, k_norm, eps)
    k = rotate(k, rope, nodes.positions)
    for b, committed in enumerate(nodes.cache_seqlens.tolist()):
        slots = slice(committed + nodes.first_node, committed + nodes.first_node + qkv.shape[1])
        k_cache[b, :, slots] = k[b].transpose(0, 1)
        v_cache[b, :, slots] = v[b].transpose(0, 1)
    return rotate(q, rope, nodes.positions)
