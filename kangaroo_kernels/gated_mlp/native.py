"""gated_mlp in C++ on the CPU: one call for norm, both products and the residual."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, number_of, unsupported

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
    batch, num_nodes, width = sizes("x", x, 3)
    hidden_width, dtype = sizes("gate_up", gate_up, 2)[0] // 2, x.dtype
    if out is None:
        out = torch.empty_like(x)
    C.gated_mlp(
        number_of("x", x),
        address("x", x, None, dtype),
        address("gate_up", gate_up, (2 * hidden_width, width), dtype),
        address("down", down, (width, hidden_width), dtype),
        address("norm_weight", norm_weight, (width,), dtype),
        address("out", out, (batch, num_nodes, width), dtype),
        batch,
        num_nodes,
        width,
        hidden_width,
        eps,
        torch.get_num_threads(),
    )
    return out
