"""gated_mlp in Triton, three launches: norm; gate, up and SwiGLU; the way down."""

from torch import Tensor

from kangaroo_kernels.checks import require_mlp
from kangaroo_kernels.triton_gemm import Epilogue, product
from kangaroo_kernels.triton_math import unsupported

__all__ = ["gated_mlp", "unsupported"]


def gated_mlp(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    norm_weight: Tensor,
    eps: float,
    *,
    out: Tensor | None = None,
) -> Tensor:
    out = require_mlp(x, gate_up, down, norm_weight, out)
    gated = x.new_empty(*x.shape[:2], down.shape[1])
    product(x, gate_up, Epilogue(norm_weight, eps, gated=True), gated)
    product(gated, down, Epilogue(residual=x), out)
    return out
