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
    """Every kernel begins with this: what the previous one, and all in front of it, have written is
    there, and the next one may be scheduled. In this order, or the one behind that would be, too,
    and blocks that wait would take the places of those that work.
    """
    if cuda_capability_geq(9):
        gdc_wait()
        gdc_launch_dependents()


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
def fetch_ahead(
    weight_ptr, weight_row, weight_live, k_start, width: tl.constexpr, COLUMNS: tl.constexpr
):
    """Call columns of rows of a weight, from `k_start` on, to L2. No kernel writes it, so that this
    may stand in front of `after_previous`: memory has work while the previous kernel ends.
    """
    if cuda_capability_geq(9):
        LINE: tl.constexpr = 1024 // weight_ptr.dtype.element_ty.primitive_bitwidth
        row = tl.where(weight_live, weight_row, 0).to(tl.int64)
        NUM_LINES: tl.constexpr = (COLUMNS + LINE - 1) // LINE
        column = k_start + tl.arange(0, NUM_LINES) * LINE
        column = tl.minimum(column, width - 1)
        place = weight_ptr + row[:, None] * width + column[None, :]
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [place.to(tl.int64)],
            dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip


@triton.jit
def sums_of_products(
    x_ptr,
    weight_ptr,
    row,
    row_live,
    weight_row,
    weight_live,
    k_start,
    k_stop,
    width: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Rows of x times rows of the weight over columns [k_start, k_stop): [rows, weight rows] in
    float32. The order of summation depends on BLOCK_K and the bounds alone.
    """
    acc = tl.zeros((row.shape[0], weight_row.shape[0]), tl.float32)
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
            weight_ptr + weight_row[None, :].to(tl.int64) * width + column[:, None],
            mask=weight_here,
            other=0.0,
        )
        if weight.dtype != x.dtype:
            weight = weight.to(tl.float32).to(x.dtype)  # exact: one byte each
        acc = exact_dot(x, weight, acc)
    return acc
