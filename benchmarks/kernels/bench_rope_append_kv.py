"""rope_append_kv of a chain, beside the rotation of transformers and a slice assignment."""

from collections.abc import Iterator

import torch

from benchmarks.harness import Case, Setting
from benchmarks.peers import rope_append
from kangaroo_kernels.testing import chain_nodes, num_slots_for, rope_table

PREFIX_LEN = 256


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in setting.sweep.models:
        heads = model.heads
        for n in setting.sweep.num_nodes:
            cache = torch.zeros(1, heads.h_kv, num_slots_for(PREFIX_LEN + n), heads.head_dim)
            qkv = torch.randn(1, n, model.qkv_width).to(dtype)
            rope = rope_table(PREFIX_LEN + n, heads.head_dim)
            nodes = chain_nodes([PREFIX_LEN], n)
            yield Case(
                name=model.name,
                shape={"N": n, "H_q": heads.h_q, "H_kv": heads.h_kv, "D": heads.head_dim},
                num_bytes=2 * n * model.qkv_width * dtype.itemsize,
                data=(qkv, cache.to(dtype), cache.to(dtype), nodes, rope),
                run=lambda op, *inputs: op(*inputs),
                peers={"torch": rope_append(rope, n, dtype)},
            )
