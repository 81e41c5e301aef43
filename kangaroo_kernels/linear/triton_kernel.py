"""linear in Triton."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import require, require_like, sizes
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
    batch, num_nodes, width = sizes("x", x, 3)
    num_out = sizes("weight", weight, 2)[0]
    require_like(
        x,
        (
            ("x", x, (batch, num_nodes, width)),
            ("weight", weight, (num_out, width)),
            ("bias", bias, (num_out,)),
            ("norm_weight", norm_weight, (width,)),
            ("residual", residual, (batch, num_nodes, num_out)),
        ),
    )
    if out is None:
        out = x.new_empty(batch, num_nodes, num_out)
    dtype = torch.float32 if out.dtype == torch.float32 else x.dtype
    require("out", out, (batch, num_nodes, num_out), dtype, x.device)
    around = Epilogue(norm_weight, eps, bias, residual)
    product(x, weight, around, out)
    return out
