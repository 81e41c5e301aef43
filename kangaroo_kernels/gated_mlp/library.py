"""gated_mlp by the library that multiplies for PyTorch. Not row-invariant. The largest temporary is
one [B * N, 2 F] of x.dtype: gates and ups, gated in place.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kangaroo_kernels.checks import require_mlp
from kangaroo_kernels.kernel_set import Target


def unsupported(target: Target) -> str | None:
    return None


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
    rows = F.rms_norm(x.flatten(0, 1), norm_weight.shape, norm_weight, eps)
    gate, up = F.linear(rows, gate_up).chunk(2, dim=-1)
    gated = F.silu(gate, inplace=True).mul_(up)
    torch.mm(gated, down.T, out=out.flatten(0, 1))
    out += x
    return out
