"""Definition of draft_logits, in plain PyTorch. Any device."""

from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.reference_math import draft_logits

__all__ = ["draft_logits", "unsupported"]


def unsupported(target: Target) -> str | None:
    return None
