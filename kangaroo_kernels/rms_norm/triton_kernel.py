"""rms_norm in Triton: see `kangaroo_kernels.triton_norm`."""

from torch import Tensor

from kangaroo_kernels.checks import require
from kangaroo_kernels.triton_math import unsupported
from kangaroo_kernels.triton_norm import normalized

__all__ = ["rms_norm", "unsupported"]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    require("x", x, None, x.dtype, x.device)
    require("weight", weight, (x.shape[-1],), x.dtype, x.device)
    return normalized(x, weight, eps)
