"""linear in Triton."""

from torch import Tensor

from kangaroo_kernels.checks import require_linear
from kangaroo_kernels.triton_gemm import Epilogue, product
from kangaroo_kernels.triton_math import unsupported

__all__ = ["linear", "unsupported"]


def linear(
    x: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    norm_weight: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    out = require_linear(x, weight, bias, norm_weight, residual, out)
    product(x, weight, Epilogue(norm_weight, eps, bias, residual), out)
    return out
