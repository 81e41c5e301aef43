"""linear in CUDA C++."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import require, require_like, sizes
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
    number = number_of("x", x)
    with torch.cuda.device(x.device):
        C.linear_cuda(
            number,
            *map(start_of, (x, weight, bias, norm_weight, residual, out)),
            number_of("out", out),
            batch,
            num_nodes,
            width,
            num_out,
            eps,
            allocator(x.device),
            stream_of(x),
        )
    return out
