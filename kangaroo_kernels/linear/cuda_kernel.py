"""linear in CUDA C++."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import require_linear
from kangaroo_kernels.cuda_core import allocator, number_of, start_of, stream_of, unsupported
from kangaroo_kernels.native import C

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
    number = number_of("x", x)
    with torch.cuda.device(x.device):
        C.linear_cuda(
            number,
            *map(start_of, (x, weight, bias, norm_weight, residual, out)),
            number_of("out", out),
            *x.shape,
            len(weight),
            eps,
            allocator(x.device),
            stream_of(x),
        )
    return out
