"""adapter_step: one draft position, and the two after a full acceptance, beside PyTorch."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Setting, main
from benchmarks.kernels.bench_rope_append_kv import eager
from benchmarks.models import EPS, models_for
from kangaroo_kernels.adapter_weights import StepWeights
from kangaroo_kernels.testing import (
    chain_nodes,
    num_slots_for,
    random_norm_weight,
    random_weight,
    rope_table,
)

PREFIX_LEN = 256


def peer(h: Tensor, norm: Tensor, qkv: Tensor, o: Tensor, *caches_and_places: Any) -> Tensor:
    k_cache, v_cache, _, _ = caches_and_places
    rows = F.linear(F.rms_norm(h, norm.shape, norm, EPS), qkv)
    q = eager(rows, *caches_and_places)
    used = PREFIX_LEN + h.shape[1]
    k, v = k_cache[:, :, :used], v_cache[:, :, :used]
    mask = torch.ones(h.shape[1], used, dtype=torch.bool).tril(PREFIX_LEN)
    heads = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=q.shape[1] != k.shape[1])
    return h + F.linear(heads.transpose(1, 2).flatten(2), o)


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in models_for(setting.device):
        c, heads = model.hidden, model.heads
        q_width = heads.h_q * heads.head_dim
        for n in (1, 2):
            cache = torch.zeros(1, heads.h_kv, num_slots_for(PREFIX_LEN + n), heads.head_dim)
            rows = 2 * (PREFIX_LEN + n) * heads.h_kv * heads.head_dim
            yield Case(
                name=model.name,
                shape={"N": n, "C": c, "H_q": heads.h_q, "H_kv": heads.h_kv},
                num_bytes=((model.qkv_width + q_width) * c + rows + 2 * n * c) * dtype.itemsize,
                data=(
                    torch.randn(1, n, c).to(dtype),
                    random_norm_weight(c, dtype),
                    random_weight(model.qkv_width, c, dtype),
                    random_weight(c, q_width, dtype),
                    cache.to(dtype),
                    cache.to(dtype),
                    chain_nodes([PREFIX_LEN], n),
                    rope_table(PREFIX_LEN + n, heads.head_dim),
                ),
                run=lambda op, h, norm, qkv, o, *rest: op(
                    h, StepWeights(norm, qkv, o), *rest, eps=EPS
                ),
                peer=("torch", peer),
            )


if __name__ == "__main__":
    main("adapter_step", cases)
