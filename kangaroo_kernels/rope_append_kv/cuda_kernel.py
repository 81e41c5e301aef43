"""rope_append_kv in CUDA C++."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import require, require_like, require_slots, sizes
from kangaroo_kernels.cuda_core import number_of, start_of, stream_of, unsupported
from kangaroo_kernels.native import C
from kangaroo_kernels.nodes import NodeBatch

__all__ = ["rope_append_kv", "unsupported"]


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
    num_positions, half = sizes("rope", rope, 3)[1], head_dim // 2
    require("rope", rope, (2, num_positions, half), torch.float32, qkv.device)
    require("nodes.positions", nodes.positions, (batch, num_nodes), torch.int32, qkv.device)
    require_slots(nodes, num_slots)
    number = number_of("qkv", qkv)
    q = qkv.new_empty(batch, num_nodes, h_q, head_dim)
    places = (start_of(nodes.positions), start_of(nodes.cache_seqlens), 0)
    with torch.cuda.device(qkv.device):
        C.rope_append_kv_cuda(
            number,
            start_of(qkv),
            start_of(q),
            h_q,
            (start_of(k_cache), start_of(v_cache), h_kv, num_slots, head_dim),
            (start_of(rope), num_positions, half),
            start_of(q_norm),
            start_of(k_norm),
            (*places, batch, num_nodes, nodes.first_node),
            eps,
            stream_of(qkv),
        )
    return q
