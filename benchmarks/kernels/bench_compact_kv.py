"""compact_kv of a path that skips every other node, beside index_select and a slice assignment."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.harness import Case, Setting, main
from benchmarks.models import models_for

NUM_LAYERS = 16
PREFIX_LEN = 256


def torch_compact(cache: Tensor, path: Tensor, path_len: Tensor, seqlens: Tensor) -> None:
    kept = cache.index_select(3, PREFIX_LEN + path[0])
    cache[:, :, :, PREFIX_LEN : PREFIX_LEN + path.shape[1]] = kept


def cases(setting: Setting) -> Iterator[Case]:
    for model in models_for(setting.device):
        heads = model.heads
        cache = torch.randn(2 * NUM_LAYERS, 1, heads.h_kv, PREFIX_LEN + 64, heads.head_dim)
        for kept in (2, 6):
            lengths = (torch.tensor([n], dtype=torch.int32) for n in (kept, PREFIX_LEN))
            moved = 2 * NUM_LAYERS * heads.h_kv * (kept - 1) * heads.head_dim
            yield Case(
                name=model.name,
                shape={"rows": kept, "layers": NUM_LAYERS, "H_kv": heads.h_kv},
                num_bytes=2 * moved * setting.dtype.itemsize,
                data=(cache.to(setting.dtype), torch.arange(0, 2 * kept, 2)[None], *lengths),
                run=lambda op, cache, *path: op([cache], *path),
                peer=("torch", torch_compact),
            )


if __name__ == "__main__":
    main("compact_kv", cases)
