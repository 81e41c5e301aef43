"""rms_norm in Triton: one program per row."""

import triton
import triton.language as tl
from torch import Tensor

from kangaroo_kernels.checks import require
from kangaroo_kernels.triton_math import after_previous, launching, pad_to_power_of_2, unsupported

__all__ = ["rms_norm", "unsupported"]


@triton.jit
def _rms_norm_kernel(x_ptr, weight_ptr, out_ptr, eps, width: tl.constexpr, BLOCK: tl.constexpr):
    after_previous()
    column = tl.arange(0, BLOCK)
    inside = column < width
    place = tl.program_id(0).to(tl.int64) * width + column
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    out = x * tl.rsqrt(tl.sum(x * x) / width + eps) * weight
    tl.store(out_ptr + place, out.to(out_ptr.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    width = x.shape[-1]
    require("x", x, None, x.dtype, x.device)
    require("weight", weight, (width,), x.dtype, x.device)
    out = x.new_empty(x.shape)
    if x.numel():
        block = pad_to_power_of_2(width)
        _rms_norm_kernel[(x.numel() // width,)](
            x, weight, out, eps, width=width, BLOCK=block, num_warps=4, **launching()
        )
    return out
