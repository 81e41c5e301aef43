"""adapter_step: one draft position, and the two after a full acceptance, beside PyTorch."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Setting
from benchmarks.models import EPS
from benchmarks.peers import rope_append
from kangaroo_kernels.adapter_weights import StepWeights
from kangaroo_kernels.testing import (
    Heads,
    chain_nodes,
    num_slots_for,
    random_norm_weight,
    random_weight,
    rope_table,
)


def peer(rope: Tensor, heads: Heads, num_nodes: int, dtype: torch.dtype) -> Callable[..., Tensor]:
    append, used = rope_append(rope, num_nodes, dtype), rope.shape[1]
    mask = torch.ones(num_nodes, used, dtype=torch.bool).tril(used - num_nodes)
    mask = mask.repeat_interleave(heads.h_q // heads.h_kv, dim=0)

    def run(h: Tensor, norm: Tensor, qkv: Tensor, o: Tensor, *caches: Any) -> Tensor:
        q = append(F.linear(F.rms_norm(h, norm.shape, norm, EPS), qkv), *caches)
        k, v = (cache[:, :, :used] for cache in caches[:2])
        q = q.unflatten(1, (k.shape[1], -1)).transpose(2, 3).flatten(2, 3)  # group in the rows
        out = F.scaled_dot_product_attention(q, k, v, None if num_nodes == 1 else mask)
        out = out.unflatten(2, (num_nodes, -1)).permute(0, 2, 1, 3, 4)
        return h + F.linear(out.flatten(2), o)

    return run


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    shapes = [(context, n) for context in setting.sweep.contexts for n in (1, 2)]
    for model in setting.sweep.models:
        c, heads = model.hidden, model.heads
        q_width = heads.h_q * heads.head_dim
        for context, n in shapes:
            used = context + n
            cache = torch.zeros(1, heads.h_kv, num_slots_for(used), heads.head_dim)
            rows = 2 * used * heads.h_kv * heads.head_dim
            rope = rope_table(used, heads.head_dim)
            yield Case(
                name=model.name,
                shape={"N": n, "context": context, "C": c, "H_kv": heads.h_kv},
                num_bytes=((model.qkv_width + q_width) * c + rows + 2 * n * c) * dtype.itemsize,
                data=(
                    torch.randn(1, n, c).to(dtype),
                    random_norm_weight(c, dtype),
                    random_weight(model.qkv_width, c, dtype),
                    random_weight(c, q_width, dtype),
                    cache.to(dtype),
                    cache.to(dtype),
                    chain_nodes([context], n),
                    rope,
                ),
                run=lambda op, h, norm, qkv, o, *rest: op(
                    h, StepWeights(norm, qkv, o), *rest, eps=EPS
                ),
                peers={"torch": peer(rope, heads, n, dtype)},
            )
