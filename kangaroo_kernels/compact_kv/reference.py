"""Definition of compact_kv, in plain PyTorch. Any device."""

from collections.abc import Sequence

from torch import Tensor

from kangaroo_kernels.kernel_set import Target


def unsupported(target: Target) -> str | None:
    return None


def compact_kv(
    caches: Sequence[Tensor], path: Tensor, path_len: Tensor, cache_seqlens: Tensor
) -> None:
    for b, (kept, committed) in enumerate(
        zip(path_len.tolist(), cache_seqlens.tolist(), strict=True)
    ):
        for cache in caches:
            cache[:, b, :, committed : committed + kept] = cache[
                :, b, :, committed + path[b, :kept]
            ]
