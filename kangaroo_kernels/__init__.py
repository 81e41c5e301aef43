"""The ops of the decode path: one contract each, a reference, and faster siblings. Never imports
`kangaroo`.
"""

from kangaroo_kernels.kernel_set import Backend, KernelSet, Target, UnsupportedError

__all__ = ["Backend", "KernelSet", "Target", "UnsupportedError"]
