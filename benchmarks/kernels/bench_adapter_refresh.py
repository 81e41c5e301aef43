"""adapter_refresh after rounds that accept 1, 4 or 7 slots, beside the same maths in PyTorch."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Setting
from benchmarks.models import EPS
from benchmarks.peers import rope_append
from kangaroo_kernels.adapter_weights import RefreshWeights
from kangaroo_kernels.testing import (
    chain_nodes,
    num_slots_for,
    random_norm_weight,
    random_weight,
    rope_table,
)

PREFIX_LEN = 256


def peer(rope: Tensor, num_nodes: int, dtype: torch.dtype) -> Callable[..., None]:
    append = rope_append(rope, num_nodes, dtype)

    def run(states: Tensor, norms: Tensor, weight: Tensor, *caches: Any) -> None:
        normed = [F.rms_norm(x, w.shape, w, EPS) for x, w in zip(states, norms, strict=True)]
        append(F.linear(torch.cat(normed, dim=-1), weight), *caches)

    return run


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in setting.sweep.models:
        c, heads = model.hidden, model.heads
        kv_width = 2 * heads.h_kv * heads.head_dim
        for n in (1, 4, 7):
            rope = rope_table(PREFIX_LEN + n, heads.head_dim)
            cache = torch.zeros(1, heads.h_kv, num_slots_for(PREFIX_LEN + n), heads.head_dim)
            yield Case(
                name=model.name,
                shape={"N": n, "C": c, "H_kv": heads.h_kv, "D": heads.head_dim},
                num_bytes=(kv_width * 3 * c + n * (3 * c + kv_width)) * dtype.itemsize,
                data=(
                    torch.randn(3, 1, n, c).to(dtype),
                    torch.stack([random_norm_weight(c, dtype) for _ in range(3)]),
                    random_weight(kv_width, 3 * c, dtype),
                    cache.to(dtype),
                    cache.to(dtype),
                    chain_nodes([PREFIX_LEN], n),
                    rope,
                ),
                run=lambda op, states, norms, weight, *rest: op(
                    tuple(states), RefreshWeights(*norms, weight), *rest, eps=EPS
                ),
                peers={"torch": peer(rope, n, dtype)},
            )
