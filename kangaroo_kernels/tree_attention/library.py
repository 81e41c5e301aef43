"""tree_attention by flash-attn, where it is installed and takes the call, else by PyTorch's SDPA.
Not row-invariant. Only the part of the cache that is in use is read; what a node does not see of it
must be finite. For a chain on a GPU no mask is made, but in float32, which no flash kernel takes.

SDPA must know the lengths: without `nodes.committed` the host waits for them.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from kangaroo_kernels.checks import require_attention
from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.reference_math import visible

FLASH_HEAD_DIM = 256  # at most, and a multiple of 8


def _load() -> Callable[..., Any] | None:
    try:
        found: Callable[..., Any] = import_module("flash_attn").flash_attn_with_kvcache
    except ImportError:
        return None
    return found


FLASH = _load()


def unsupported(target: Target) -> str | None:
    return None


def tree_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch, scale: float
) -> Tensor:
    require_attention(q, k_cache, v_cache, nodes)
    if q.numel() == 0:
        return torch.empty_like(q)
    if FLASH is not None and _flash_takes(q, nodes):
        return _by_flash_attn(FLASH, q, k_cache, v_cache, nodes, scale=scale)
    committed = nodes.cache_seqlens.tolist() if nodes.committed is None else nodes.committed
    if len(set(committed)) == 1:
        return _by_sdpa(q, k_cache, v_cache, nodes, committed[0], scale)
    parts = []
    for b, length in enumerate(committed):
        own = slice(b, b + 1)
        part = _by_sdpa(q[own], k_cache[own], v_cache[own], nodes.sequence(b), length, scale)
        parts.append(part)
    return torch.cat(parts)


def _flash_takes(q: Tensor, nodes: NodeBatch) -> bool:
    """Chains of 16-bit numbers on a GPU."""
    head_dim = q.shape[3]
    fits = head_dim <= FLASH_HEAD_DIM and head_dim % 8 == 0
    return q.is_cuda and q.dtype.itemsize == 2 and nodes.ancestors is None and fits


def _by_flash_attn(
    flash: Callable[..., Any],
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    nodes: NodeBatch,
    *,
    scale: float,
) -> Tensor:
    """Its causal mask is aligned with the last key: row i of N sees all but N - 1 - i of them."""
    used = nodes.cache_seqlens + (nodes.first_node + q.shape[1])
    k, v = k_cache.transpose(1, 2), v_cache.transpose(1, 2)
    out: Tensor = flash(q, k, v, cache_seqlens=used, softmax_scale=scale, causal=True)
    return out


def _by_sdpa(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch, committed: int, scale: float
) -> Tensor:
    """Sequences of the same number of committed slots."""
    num_nodes = q.shape[1]
    used = committed + nodes.first_node + num_nodes
    k, v = k_cache[:, :, :used], v_cache[:, :, :used]
    if nodes.ancestors is None and num_nodes == 1:
        return grouped_sdpa(q, k, v, None, scale)
    if nodes.ancestors is None and q.is_cuda:
        return _causal_sdpa(q, k, v, scale)
    mask = grouped_mask(nodes, used, q.shape[2] // k.shape[1])
    return grouped_sdpa(q, k, v, mask, scale)


def _causal_sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """A chain whose last node sees all of k and v [B, H_kv, used, D]."""
    mask = causal_lower_right(q.shape[1], k.shape[2])
    grouped = q.shape[2] != k.shape[1]
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k, v, mask, scale=scale, enable_gqa=grouped
    )
    return out.transpose(1, 2).contiguous()


def grouped_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """scaled_dot_product_attention of q [B, N, H_q, D] over k and v [B, H_kv, used, D], with the
    mask of `grouped_mask`. The heads of a group are rows of their key head: with `enable_gqa` a
    mask leaves only the slow path.
    """
    batch, num_nodes, h_q, head_dim = q.shape
    h_kv, group = k.shape[1], h_q // k.shape[1]
    rows = q.view(batch, num_nodes, h_kv, group, head_dim).transpose(1, 2).flatten(2, 3)
    out = F.scaled_dot_product_attention(rows, k, v, mask, scale=scale)
    out = out.view(batch, h_kv, num_nodes, group, head_dim)
    return out.transpose(1, 2).flatten(2, 3)


def grouped_mask(nodes: NodeBatch, used: int, group: int) -> Tensor:
    """[B, 1, N * group, used] bool: what each row of `grouped_sdpa` sees."""
    return visible(nodes, used).repeat_interleave(group, dim=1)[:, None]
