"""Checks in front of a launch, shared by all fast implementations: what they refuse, and in which
words.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from kangaroo_kernels.draft_head import MAX_K, QUANTIZED, DraftHead
from kangaroo_kernels.draws import DTYPES, Draws
from kangaroo_kernels.nodes import MAX_TREE_NODES, NodeBatch
from kangaroo_kernels.tree_attention import KV_CHUNK


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


def require_planes(
    name: str, cache: Tensor, batch: int, dtype: torch.dtype, device: torch.device
) -> tuple[int, int, int, int, int]:
    """Planes, heads, slots, width, and elements from one plane to the next; ValueError unless every
    plane of `cache` [A, batch, H, S, W] is contiguous, of this dtype, on this device.
    """
    planes, _, heads, num_slots, width = sizes(name, cache, 5)
    wanted = (batch, heads, num_slots, width)
    if cache.is_contiguous() or planes == 0:
        require(name, cache, (planes, *wanted), dtype, device)
    else:
        require(name, cache[0], wanted, dtype, device)
    return planes, heads, num_slots, width, cache.stride(0)


def require_kv(kv: Tensor, shape: tuple[int, int, int], batch: int, like: Tensor) -> None:
    """Keys and values whose planes, heads and head_dim are `shape`, of dtype and device `like`."""
    planes, heads, _, head_dim, _ = require_planes("kv", kv, batch, like.dtype, like.device)
    if (planes, heads, head_dim) != shape:
        got = planes, heads, head_dim
        raise ValueError(f"kv: expected planes, heads and head_dim {shape}, got {got}")


def require_within(name: str, values: Tensor, least: int, limit: int) -> None:
    """All of `values` in [least, limit), where the host can see them; on a GPU kernels mask instead
    of waiting for a copy.
    """
    if not values.is_cpu or values.numel() == 0:
        return
    low, high = (int(bound) for bound in values.aminmax())
    if low < least or high >= limit:
        raise ValueError(f"{name}: expected values in [{least}, {limit}), got {low} to {high}")


def require_increasing(name: str, values: Tensor) -> None:
    """Each of `values` [R] larger than the one before, where the host can see them."""
    if values.is_cpu and len(falls := (values[1:] <= values[:-1]).nonzero()):
        pair = values[int(falls[0]) :][:2].tolist()
        raise ValueError(f"{name}: expected strictly increasing values, got {pair}")


def require_draws(draws: Draws, batch: int, device: torch.device) -> None:
    """Draws of `batch` sequences, whose values are possible, where the host can see them."""
    for name, values, dtype in zip(Draws._fields, draws, DTYPES, strict=True):
        require(f"draws.{name}", values, (batch,), dtype, device)
    most = {"temperature": torch.finfo(torch.float64).max, "top_p": 1, "min_p": 1}
    for name, limit in most.items():
        values = getattr(draws, name)
        if values.is_cpu and not bool(((values >= 0) & (values <= limit)).all()):
            got = values.tolist()
            raise ValueError(f"draws.{name}: expected numbers in [0, {limit}], got {got}")
    require_within("draws.top_k", draws.top_k, 0, 2**31)
    require_within("draws.sequence", draws.sequence, 0, 2**32)


def require_slots(nodes: NodeBatch, num_slots: int) -> None:
    """cache_seqlens of the right kind, and the nodes' slots inside a cache of `num_slots`."""
    batch, num_nodes = nodes.positions.shape
    seqlens, behind = nodes.cache_seqlens, nodes.first_node + num_nodes
    if nodes.first_node < 0:
        raise ValueError(f"nodes.first_node: expected at least 0, got {nodes.first_node}")
    require("cache_seqlens", seqlens, (batch,), torch.int32, nodes.positions.device)
    require_within("cache_seqlens", seqlens, 0, num_slots - behind + 1)


def require_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None,
    residual: Tensor | None,
    out: Tensor | None,
) -> Tensor:
    """Arguments of linear; returns `out`, new where it is not given."""
    batch, num_nodes, width = sizes("x", x, 3)
    num_out = sizes("weight", weight, 2)[0]
    require_like(
        x,
        (
            ("x", x, (batch, num_nodes, width)),
            ("weight", weight, (num_out, width)),
            ("bias", bias, (num_out,)),
            ("norm_weight", norm_weight, (width,)),
            ("residual", residual, (batch, num_nodes, num_out)),
        ),
    )
    if out is None:
        return x.new_empty(batch, num_nodes, num_out)
    dtype = torch.float32 if out.dtype == torch.float32 else x.dtype
    require("out", out, (batch, num_nodes, num_out), dtype, x.device)
    return out


def require_mlp(
    x: Tensor, gate_up: Tensor, down: Tensor, norm_weight: Tensor, out: Tensor | None
) -> Tensor:
    """Arguments of gated_mlp; returns `out`, new where it is not given."""
    shape = sizes("x", x, 3)
    width, inner = shape[2], sizes("gate_up", gate_up, 2)[0] // 2
    require_like(
        x,
        (
            ("x", x, shape),
            ("gate_up", gate_up, (2 * inner, width)),
            ("down", down, (width, inner)),
            ("norm_weight", norm_weight, (width,)),
            ("out", out, shape),
        ),
    )
    return x.new_empty(shape) if out is None else out


def require_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch) -> None:
    """Arguments of tree_attention."""
    batch, num_nodes, h_q, _ = sizes("q", q, 4)
    h_kv, num_slots, head_dim = sizes("k_cache", k_cache, 4)[1:]
    q_shape, cache = (batch, num_nodes, h_q, head_dim), (batch, h_kv, num_slots, head_dim)
    like = (("q", q, q_shape), ("k_cache", k_cache, cache), ("v_cache", v_cache, cache))
    require_like(k_cache, like)
    require("nodes.positions", nodes.positions, (batch, num_nodes), torch.int32, q.device)
    require_slots(nodes, num_slots)
    require_cache(k_cache, h_q, nodes)


def require_cache(k_cache: Tensor, h_q: int, nodes: NodeBatch) -> None:
    """What attention asks of heads, slots and nodes, once shapes and dtypes are known to agree."""
    _, h_kv, num_slots, _ = k_cache.shape
    if h_q % h_kv:
        raise ValueError(f"q: expected heads in multiples of the cache's {h_kv}, got {h_q}")
    if num_slots % KV_CHUNK:
        raise ValueError(f"k_cache: expected slots in multiples of {KV_CHUNK}, got {num_slots}")
    if nodes.ancestors is None:
        return
    at = nodes.positions.shape
    require("nodes.ancestors", nodes.ancestors, at, torch.int64, k_cache.device)
    if nodes.first_node + at[1] > MAX_TREE_NODES:
        raise ValueError(
            f"nodes: expected at most {MAX_TREE_NODES} in a tree, got {nodes.first_node + at[1]}"
        )


def require_head(head: DraftHead, h: Tensor, k: int) -> None:
    """A head for states `h` [B, N, C], with at least `k` tokens to choose from."""
    shape = sizes("head.weight", head.weight, 2)
    quantized = head.weight.dtype in QUANTIZED
    dtype = head.weight.dtype if quantized else h.dtype
    require("head.weight", head.weight, (shape[0], h.shape[-1]), dtype, h.device)
    if quantized != (head.scale is not None):
        wanted, got = ("one scale a row", "None") if quantized else ("None", "a tensor")
        raise ValueError(f"head.scale: expected {wanted} for {head.weight.dtype}, got {got}")
    if head.scale is not None:
        require("head.scale", head.scale, (shape[0],), torch.float32, h.device)
    if head.token_ids is not None:
        ids = head.token_ids
        require("head.token_ids", ids, sizes("head.token_ids", ids, 1), torch.int32, h.device)
        require_within("head.token_ids", ids, 0, shape[0])
        require_increasing("head.token_ids", ids)
    if not 1 <= k <= min(MAX_K, head.num_ids):
        raise ValueError(f"k: expected 1 to {min(MAX_K, head.num_ids)}, got {k}")


def require_heads(qkv: Tensor, o: Tensor, head_dim: int) -> None:
    """Rows of qkv [(H_q + 2 H_kv) D, C] and columns of o [C, H_q D] are heads of that width."""
    q_width, others = o.shape[1], len(qkv) - o.shape[1]
    if q_width < head_dim or q_width % head_dim or others < 2 or others % (2 * head_dim):
        raise ValueError(
            f"qkv, o: expected rows and columns of heads of {head_dim}, got {list(qkv.shape)} and "
            f"{list(o.shape)}"
        )


def require_bounds(bounds: dict[str, tuple[int, int, int]]) -> None:
    """By name: a value, the least and the most that it may be."""
    for name, (value, least, most) in bounds.items():
        if not least <= value <= most:
            raise ValueError(f"{name}: expected {least} to {most}, got {value}")
