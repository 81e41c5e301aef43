"""compact_kv of a path that skips every other node, beside index_select and a slice assignment."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.harness import Case, Setting

PREFIX_LEN = 256


def torch_compact(slots: Tensor) -> Callable[..., None]:
    stop = PREFIX_LEN + len(slots)

    def run(cache: Tensor, *_: Tensor) -> None:
        cache[:, :, :, PREFIX_LEN:stop].copy_(cache.index_select(3, slots))

    return run


def cases(setting: Setting) -> Iterator[Case]:
    num_layers = 32 if setting.device.type == "cuda" else 16
    for model in setting.sweep.models:
        heads = model.heads
        cache = torch.randn(2 * num_layers, 1, heads.h_kv, PREFIX_LEN + 64, heads.head_dim)
        for kept in (2, 8):
            lengths = (torch.tensor([n], dtype=torch.int32) for n in (kept, PREFIX_LEN))
            path = torch.arange(0, 2 * kept, 2)
            moved = 2 * num_layers * heads.h_kv * (kept - 1) * heads.head_dim
            yield Case(
                name=model.name,
                shape={"rows": kept, "layers": num_layers, "H_kv": heads.h_kv},
                num_bytes=2 * moved * setting.dtype.itemsize,
                data=(cache.to(setting.dtype), path[None], *lengths),
                run=lambda op, cache, *path: op([cache], *path),
                peers={"index_select": torch_compact(PREFIX_LEN + path)},
            )
