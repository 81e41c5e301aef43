"""gated_mlp in C++ on the CPU: one call for norm, both products and the residual."""

import torch
from torch import Tensor

from kangaroo_kernels.checks import sizes
from kangaroo_kernels.native import C, address, unsupported

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
    hidden_width = sizes("gate_up", gate_up, 2)[0] // 2
    if out is None:
        out = torch.empty_like(x)
    C.gated_mlp(
        address("x", x),
        address("gate_up", gate_up, (2 * hidden_width, width)),
        address("down", down, (width, hidden_width)),
        address("norm_weight", norm_weight, (width,)),
        address("out", out, (batch, num_nodes, width)),
        batch * num_nodes,
        width,
        hidden_width,
        eps,
        torch.get_num_threads(),
    )
    return out
