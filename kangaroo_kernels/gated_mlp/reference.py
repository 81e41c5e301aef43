"""Definition of gated_mlp, in plain PyTorch. Any device."""

import torch.nn.functional as F
from torch import Tensor

from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.reference_math import rms_normalize, tiled_linear


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
    rows = rms_normalize(x.flatten(0, 1), norm_weight, eps)
    gate, up = tiled_linear(rows, gate_up).chunk(2, dim=-1)
    result = x + tiled_linear(F.silu(gate) * up, down).view_as(x)
    return result if out is None else out.copy_(result)
