"""rope_append_kv in Triton: one program per node and head."""

import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.checks import require_like, sizes
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.triton_math import (
    COUNTS,
    after_previous,
    launching,
    pad_to_power_of_2,
    unsupported,
)
from kangaroo_kernels.triton_rope import check_places, load_turn, place_heads

__all__ = ["rope_append_kv", "unsupported"]


@triton.jit(do_not_specialize=COUNTS)
def _rope_append_kv_kernel(
    qkv_ptr,
    q_ptr,
    k_cache_ptr,
    v_cache_ptr,
    rope_ptr,
    positions_ptr,
    seqlens_ptr,
    q_norm_ptr,
    k_norm_ptr,
    first_node,
    num_nodes,
    num_slots,
    num_positions,
    eps,
    H_Q: tl.constexpr,
    H_KV: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    after_previous()
    row = tl.program_id(0) + tl.arange(0, 1)
    head = tl.program_id(1)
    pair = tl.arange(0, BLOCK)
    inside = (pair < D // 2)[None, :] & (row >= 0)[:, None]
    source = (row.to(tl.int64) * (H_Q + 2 * H_KV) + head)[:, None] * D + pair[None, :]
    a = tl.load(qkv_ptr + source, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(qkv_ptr + source + D // 2, mask=inside, other=0.0).to(tl.float32)
    if q_norm_ptr is not None:
        if head < H_Q:
            a, b = _normalize(a, b, q_norm_ptr, eps, pair, D)
    if k_norm_ptr is not None:
        if (head >= H_Q) & (head < H_Q + H_KV):
            a, b = _normalize(a, b, k_norm_ptr, eps, pair, D)
    cos, sin = load_turn(rope_ptr, positions_ptr, row, row >= 0, inside, pair, num_positions, D)
    place_heads(
        a, b, cos, sin, head, row, inside, pair, q_ptr, k_cache_ptr, v_cache_ptr, seqlens_ptr,
        first_node, num_nodes, num_slots, H_Q, H_KV, D,
    )  # fmt: skip


@triton.jit
def _normalize(a, b, norm_ptr, eps, pair, D: tl.constexpr):
    """RMSNorm of one head, given as its two halves [1, BLOCK]."""
    HALF: tl.constexpr = D // 2
    squares = tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1)
    scale = tl.rsqrt(squares / D + eps)[:, None]
    norm_a = tl.load(norm_ptr + pair, mask=pair < HALF, other=0.0).to(tl.float32)
    norm_b = tl.load(norm_ptr + HALF + pair, mask=pair < HALF, other=0.0).to(tl.float32)
    return a * scale * norm_a[None, :], b * scale * norm_b[None, :]


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
    batch, h_kv, num_slots, head_dim = cache_shape = sizes("k_cache", k_cache, 4)
    num_nodes, qkv_width = sizes("qkv", qkv, 3)[1:]
    h_q = max(0, qkv_width // head_dim - 2 * h_kv)
    require_like(
        qkv,
        (
            ("qkv", qkv, (batch, num_nodes, (h_q + 2 * h_kv) * head_dim)),
            ("k_cache", k_cache, cache_shape),
            ("v_cache", v_cache, cache_shape),
            ("q_norm", q_norm, (head_dim,)),
            ("k_norm", k_norm, (head_dim,)),
        ),
    )
    check_places(rope, nodes, (batch, num_nodes), k_cache)
    q = qkv.new_empty(batch, num_nodes, h_q, head_dim)
    if num_nodes:
        _rope_append_kv_kernel[(batch * num_nodes, h_q + 2 * h_kv)](
            qkv, q, k_cache, v_cache, rope, nodes.positions, nodes.cache_seqlens, q_norm, k_norm,
            nodes.first_node, num_nodes, num_slots, rope.shape[1], eps, H_Q=h_q, H_KV=h_kv,
            D=head_dim, BLOCK=pad_to_power_of_2(head_dim // 2), num_warps=1, **launching(),
        )  # fmt: skip
    return q
