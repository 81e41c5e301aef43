"""Definition of tree_attention, in plain PyTorch: online softmax over chunks of fixed place and
size. Any device.
"""

from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.reference_math import tree_attention

__all__ = ["tree_attention", "unsupported"]


def unsupported(target: Target) -> str | None:
    return None
