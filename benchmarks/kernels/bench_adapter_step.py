"""adapter_step: one draft position, and the two after a full acceptance, beside PyTorch."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Setting
from benchmarks.models import EPS
from benchmarks.peers import rope_append
from kangaroo_kernels.adapter_weights import StepWeights
from kangaroo_kernels.testing import (
    chain_nodes,
    num_slots_for,
    random_norm_weight,
    random_weight,
    rope_table,
)


def peer(h: Tensor, norm: Tensor, qkv: Tensor, o: Tensor, *caches_and_places: Any) -> Tensor:
    k_cache, v_cache, _, rope = caches_and_places
    rows = F.linear(F.rms_norm(h, norm.shape, norm, EPS), qkv)
    q = rope_append(rows, *caches_and_places)
    used = rope.shape[1]
    k, v = k_cache[:, :, :used], v_cache[:, :, :used]
    mask = torch.ones(h.shape[1], used, dtype=torch.bool).tril(used - h.shape[1])
    heads = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=q.shape[1] != k.shape[1])
    return h + F.linear(heads.transpose(1, 2).flatten(2), o)


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
                    rope_table(used, heads.head_dim),
                ),
                run=lambda op, h, norm, qkv, o, *rest: op(
                    h, StepWeights(norm, qkv, o), *rest, eps=EPS
                ),
                peers={"torch": peer},
            )
