"""Definition of rope_append_kv, in plain PyTorch. Any device."""

from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.reference_math import rope_append_kv

__all__ = ["rope_append_kv", "unsupported"]


def unsupported(target: Target) -> str | None:
    return None
