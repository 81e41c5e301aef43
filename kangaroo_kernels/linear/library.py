"""linear by the library that multiplies for PyTorch: cuBLAS on a GPU, oneDNN or MKL on a CPU. Not
row-invariant.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kangaroo_kernels.checks import require_linear
from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.reference_math import WIDE_ROWS


def unsupported(target: Target) -> str | None:
    return None


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
    rows = x if norm_weight is None else F.rms_norm(x, norm_weight.shape, norm_weight, eps)
    _multiply(rows.flatten(0, 1), weight, out.flatten(0, 1))
    for behind in (bias, residual):
        if behind is not None:
            out += behind
    return out


def _multiply(rows: Tensor, weight: Tensor, out: Tensor) -> None:
    """rows [M, C] times weight [O, C] to out [M, O], unrounded where `out` alone is float32."""
    if out.dtype == rows.dtype:
        torch.mm(rows, weight.T, out=out)
    elif rows.is_cuda:
        torch.mm(rows, weight.T, torch.float32, out=out)
    else:  # of the weight only a part is made wide at a time
        wide, parts = rows.float(), weight.split(WIDE_ROWS)
        torch.cat([F.linear(wide, some.float()) for some in parts], dim=1, out=out)
