"""The adapter over whole sequences, differentiable: what the engine does with it, slot by slot."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kangaroo.models.adapter import Adapter, VerifiedStates


def full_sequence(
    adapter: Adapter,
    states: VerifiedStates,
    rope: Tensor,
    *,
    delta: int,
    positions: Tensor | None = None,
) -> Tensor:
    """Every slot as the node of a draft whose newest verified slot is `delta` slots behind it.

    The query at slot t sees the rows that `Adapter.write_verified` makes at slots <= t - delta, and
    those that `Adapter.step` makes at slots t - delta + 1 to t. The root is not verified when it
    drafts, so delta is 1 for the root and j + 1 for the draft at depth j. The rows of the `paper`
    adapter are the same either way.

    Args:
        states: of all T slots; what follows the last one is never read.
        rope: [2, P, D / 2] float32, P >= T.
        delta: at least 1.
        positions: [B, T] int64, of each slot in its document, of which alone it sees; None: a row
            is one document.
    Returns:
        [B, T, C], in front of `adapter.norm`.
    """
    config = adapter.config
    h_e, eps = states.exit, config.rms_norm_eps
    shape = h_e.shape[-1:]
    widths = [config.num_heads, config.num_kv_heads, config.num_kv_heads]
    x = F.rms_norm(h_e, shape, adapter.input_norm, eps)
    q, k, v = heads_of(F.linear(x, adapter.qkv), config.head_dim).split(widths, dim=1)
    if positions is None:
        positions = torch.arange(h_e.shape[1], device=h_e.device)[None]
    here, mask = rope[:, positions].unsqueeze(2), own_document(positions)
    k = rotate(k, here)
    if config.kind == "deep_prefix":
        last = F.rms_norm(states.last, shape, adapter.deep_norm, eps)
        successor = F.rms_norm(states.successor, shape, adapter.successor_norm, eps)
        rows = F.linear(torch.cat([x, last, successor], dim=-1), adapter.deep_kv)
        k_deep, v_deep = heads_of(rows, config.head_dim).split(config.num_kv_heads, dim=1)
        k = torch.cat([rotate(k_deep, here), k], dim=2)
        v = torch.cat([v_deep, v], dim=2)
        mask = verified_then_own(mask, delta)
    groups = config.num_heads // config.num_kv_heads
    heads = F.scaled_dot_product_attention(
        rotate(q, here),
        k.repeat_interleave(groups, dim=1),
        v.repeat_interleave(groups, dim=1),
        attn_mask=mask,
    )
    return h_e + F.linear(heads.transpose(1, 2).flatten(2), adapter.o)


def own_document(positions: Tensor) -> Tensor:
    """Positions [B, T] -> [B, 1, T, T] bool: the slots of its document that a query sees."""
    slot = torch.arange(positions.shape[1], device=positions.device)
    begin = (slot - positions)[:, None, :, None]
    return (begin <= slot) & (slot <= slot[:, None])


def verified_then_own(seen: Tensor, delta: int) -> Tensor:
    """Slots seen [B, 1, T, T] -> [B, 1, T, 2 T] bool: their verified rows, then the unverified."""
    slot = torch.arange(seen.shape[-1], device=seen.device)
    verified = seen & (slot <= slot[:, None] - delta)
    return torch.cat([verified, seen & ~verified], dim=-1)


def draft_hidden(adapter: Adapter, states: Tensor) -> Tensor:
    """The adapter's final norm: [..., C] -> [..., C], what the target's head reads."""
    return F.rms_norm(states, states.shape[-1:], adapter.norm, adapter.config.rms_norm_eps)


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """RoPE in halves, as Llama: x [B, H, T, D] by rope [2, B, 1, T, D / 2], that of each slot."""
    cos, sin = rope.to(x.dtype)
    a, b = x.tensor_split(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def heads_of(rows: Tensor, head_dim: int) -> Tensor:
    """[B, T, H * D] -> [B, H, T, D]."""
    heads: Tensor = rows.unflatten(-1, (-1, head_dim))
    return heads.transpose(1, 2)
