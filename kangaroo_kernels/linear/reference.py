"""Definition of linear, in plain PyTorch. Any device."""

from torch import Tensor

from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.reference_math import rms_normalize, tiled_linear


def unsupported(target: Target) -> str | None:
    return None


def linear(
    x: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    norm_weight: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
) -> Tensor:
    rows = x.flatten(0, 1)
    if norm_weight is not None:
        rows = rms_normalize(rows, norm_weight, eps)
    out = tiled_linear(rows, weight).view(*x.shape[:2], -1)
    if bias is not None:
        out = out + bias
    return out if residual is None else residual + out
