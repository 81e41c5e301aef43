"""linear in C++ on the CPU."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, number_of, optional_address, unsupported

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
    out_width, dtype = sizes("weight", weight, 2)[0], x.dtype
    if out is None:
        out = x.new_empty(batch, num_nodes, out_width)
    unrounded = out.dtype == torch.float32
    C.linear(
        number_of("x", x),
        address("x", x, None, dtype),
        address("weight", weight, (out_width, width), dtype),
        optional_address("bias", bias, (out_width,), dtype),
        optional_address("norm_weight", norm_weight, (width,), dtype),
        optional_address("residual", residual, (batch, num_nodes, out_width), dtype),
        address("out", out, (batch, num_nodes, out_width), torch.float32 if unrounded else dtype),
        number_of("out", out),
        batch,
        num_nodes,
        width,
        out_width,
        eps,
        torch.get_num_threads(),
    )
    return out
