"""gated_mlp in Triton: one launch for norm, gate, up and SwiGLU, one product for the way down."""

from torch import Tensor

from kangaroo_kernels.checks import require_like, sizes
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
    shape = sizes("x", x, 3)
    width, inner = shape[2], sizes("gate_up", gate_up, 2)[0] // 2
    require_like(
        x,
        (
            ("x", x, shape),
            ("gate_up", gate_up, (2 * inner, width)),
            ("down", down, (width, inner)),
            ("norm_weight", norm_weight, (width,)),
            ("out", out, shape),
        ),
    )
    gated = x.new_empty(*shape[:2], inner)
    out = x.new_empty(shape) if out is None else out
    product(x, gate_up, Epilogue(norm_weight, eps, gated=True), gated)
    product(gated, down, Epilogue(residual=x), out)
    return out
