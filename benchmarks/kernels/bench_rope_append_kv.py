"""rope_append_kv of a chain, beside the rotation of transformers and a slice assignment."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.harness import Case, Setting, main
from benchmarks.models import NUM_NODES, models_for
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.testing import chain_nodes, num_slots_for, rope_table

PREFIX_LEN = 256


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


def eager(qkv: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch, rope: Tensor) -> Tensor:
    h_kv, n = k_cache.shape[1], qkv.shape[1]
    heads = qkv.unflatten(-1, (-1, k_cache.shape[3])).transpose(1, 2)
    q, k, v = heads.split([heads.shape[1] - 2 * h_kv, h_kv, h_kv], dim=1)
    cos, sin = (table[PREFIX_LEN : PREFIX_LEN + n].repeat(1, 2).to(q.dtype) for table in rope)
    k_cache[:, :, PREFIX_LEN : PREFIX_LEN + n] = rotate(k, cos, sin)
    v_cache[:, :, PREFIX_LEN : PREFIX_LEN + n] = v
    return rotate(q, cos, sin)


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in models_for(setting.device):
        heads = model.heads
        for n in NUM_NODES:
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
                peer=("torch", eager),
            )


if __name__ == "__main__":
    main("rope_append_kv", cases)
