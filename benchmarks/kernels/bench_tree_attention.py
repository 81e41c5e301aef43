"""tree_attention of a chain behind prefixes of several lengths, beside SDPA with the same mask."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Setting, main
from benchmarks.models import NUM_NODES, models_for
from kangaroo_kernels.testing import attention_inputs, chain_nodes

PREFIX_LENS = (256, 2048)


def sdpa(q: Tensor, k_cache: Tensor, v_cache: Tensor, mask: Tensor) -> Tensor:
    k, v = (cache[:, :, : mask.shape[1]] for cache in (k_cache, v_cache))
    q = q.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=q.shape[1] != k.shape[1])


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in models_for(setting.device):
        heads = model.heads
        for prefix in PREFIX_LENS:
            for n in NUM_NODES:
                inputs = attention_inputs(heads, chain_nodes([prefix], n), dtype)
                mask = torch.ones(n, prefix + n, dtype=torch.bool).tril(prefix)
                rows = 2 * (prefix + n) * heads.h_kv + 2 * n * heads.h_q
                nodes, scale = inputs.nodes, inputs.scale
                yield Case(
                    name=model.name,
                    shape={"N": n, "prefix": prefix, "H_q": heads.h_q, "H_kv": heads.h_kv},
                    num_bytes=rows * heads.head_dim * dtype.itemsize,
                    data=(inputs.q, inputs.k_cache, inputs.v_cache, mask, nodes, scale),
                    run=lambda op, q, k, v, mask, nodes, scale: op(q, k, v, nodes, scale),
                    peer=("SDPA", lambda q, k, v, mask, nodes, scale: sdpa(q, k, v, mask)),
                )


if __name__ == "__main__":
    main("tree_attention", cases)
