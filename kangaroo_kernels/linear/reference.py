"""Definition of linear, in plain PyTorch. Any device."""

from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.reference_math import linear

__all__ = ["linear", "unsupported"]


def unsupported(target: Target) -> str | None:
    return None
