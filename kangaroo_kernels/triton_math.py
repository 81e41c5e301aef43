"""What the Triton implementations share: where they run, and device functions."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
from triton.language.target_info import cuda_capability_geq

from kangaroo_kernels.kernel_set import Target

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MIN_CAPABILITY = (8, 0)  # bfloat16 tensor cores

# The interpreter multiplies the bit patterns of 16-bit operands.
INTERPRETED = bool(triton.knobs.runtime.interpret)
UPCAST = tl.constexpr(INTERPRETED)

# What varies from call to call. Triton would compile a kernel again where one of them is 1 or a
# multiple of 16: a stall in the middle of a text, and another program for another number of rows.
COUNTS = (
    "num_rows",
    "num_nodes",
    "first_node",
    "num_slots",
    "num_positions",
    "num_splits",
    "num_tiles",
    "num_ids",
    "capacity",
    "path_stride",
    "batch",
)

OWN = tl.constexpr(8)  # neighbours that a thread certainly holds: their sum asks no other

# Rows are computed in tiles of exactly one tensor-core instruction's height, however few there are.
ROW_TILE = 16


def unsupported(target: Target) -> str | None:
    """Why no Triton op can run on `target`."""
    if target.dtype not in DTYPES:
        return f"computes in {[str(d) for d in DTYPES]}, not in {target.dtype}"
    if target.device.type == "cpu":
        return None if INTERPRETED else "on a CPU only Triton's interpreter (TRITON_INTERPRET=1)"
    if target.device.type != "cuda":
        return f"runs on CUDA devices, not on {target.device.type}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device here"
    capability = torch.cuda.get_device_capability(target.device)
    if capability < MIN_CAPABILITY:
        return f"needs compute capability {MIN_CAPABILITY}, not {capability}"
    return None


def launching(*, fp_fusion: bool = True) -> dict[str, bool]:
    """Options of every launch. Where the GPU can (programmatic dependent launch), the kernel may be
    scheduled before the one in front of it has ended: it begins with `after_previous`.
    """
    return {"enable_fp_fusion": fp_fusion, "launch_pdl": bool(cuda_capability_geq(9))}


@triton.jit
def after_previous():
    """The first line of every kernel that is launched: the next one may be scheduled, and what the
    previous one, and all in front of it, have written is there.
    """
    if cuda_capability_geq(9):
        gdc_launch_dependents()
        gdc_wait()


def pad_to_power_of_2(size: int, least: int = 1) -> int:
    """The width of a block that covers `size`."""
    return int(triton.next_power_of_2(max(size, least)))


@triton.jit
def exact_dot(a, b, acc):
    """acc + a b in float32, without TF32."""
    if UPCAST:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def sums_of_products(
    x_ptr,
    norm_ptr,
    weight_ptr,
    row,
    row_live,
    weight_row,
    weight_live,
    k_start,
    k_stop,
    width: tl.constexpr,
    weight_stride: tl.constexpr,
    HAS_NORM: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Rows of x times rows of the weight over columns [k_start, k_stop), in float32.

    The order of summation depends on BLOCK_K and the bounds alone. With HAS_NORM the columns are
    multiplied by the norm's weight; its scale, by row, is left to the caller. In float16 it is the
    weight that is multiplied, for a row that is not yet scaled may overflow.

    Returns ([rows, weight rows], sums of squares of x [rows]).
    """
    acc = tl.zeros((row.shape[0], weight_row.shape[0]), tl.float32)
    squares = tl.zeros((row.shape[0], BLOCK_K // OWN), tl.float32)
    for k in range(k_start, k_stop, BLOCK_K):
        column = k + tl.arange(0, BLOCK_K)
        x_live, weight_here = row_live[:, None], weight_live[None, :]
        if width % BLOCK_K != 0:
            x_live &= (column < width)[None, :]
            weight_here &= (column < width)[:, None]
        x = tl.load(
            x_ptr + row[:, None].to(tl.int64) * width + column[None, :], mask=x_live, other=0.0
        )
        weight = tl.load(
            weight_ptr + weight_row[None, :].to(tl.int64) * weight_stride + column[:, None],
            mask=weight_here,
            other=0.0,
        )
        if HAS_NORM:
            wide = x.to(tl.float32)
            squares += tl.sum((wide * wide).reshape(row.shape[0], BLOCK_K // OWN, OWN), axis=2)
            if x.dtype == tl.float16:
                norm = tl.load(norm_ptr + column, mask=column < width, other=0.0).to(tl.float32)
                weight = (weight.to(tl.float32) * norm[:, None]).to(x.dtype)
            else:
                # Once for every row, so that the compiler fetches it ahead, as it does x.
                norm = tl.load(
                    norm_ptr + 0 * row[:, None] + column[None, :], mask=x_live, other=0.0
                )
                x = (wide * norm.to(tl.float32)).to(x.dtype)
        if weight.dtype != x.dtype:
            weight = weight.to(tl.float32).to(x.dtype)  # exact: one byte each
        acc = exact_dot(x, weight, acc)
    return acc, tl.sum(squares, axis=1)
