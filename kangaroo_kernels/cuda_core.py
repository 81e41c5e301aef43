"""What the CUDA implementations share: where they run, streams, and memory that lasts one call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.native import HOW_TO_BUILD, IMPORT_ERROR, C

# kangaroo_dtype of csrc/include/kangaroo/tensor.h
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
MIN_CAPABILITY = (8, 0)  # asynchronous copies, bfloat16 tensor cores


def unsupported(target: Target) -> str | None:
    """Why no CUDA op can run on `target`."""
    if C is None:
        return f"the C++ extension is missing ({IMPORT_ERROR}): {HOW_TO_BUILD}"
    if not C.build_info()["cuda"]:
        return "the C++ extension was built without CUDA: reinstall where nvcc is on the PATH"
    if target.dtype not in DTYPES:
        return f"computes in {[str(d) for d in DTYPES]}, not in {target.dtype}"
    if target.device.type != "cuda":
        return f"runs on CUDA devices, not on {target.device.type}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device here"
    capability = torch.cuda.get_device_capability(target.device)
    if capability < MIN_CAPABILITY:
        return f"needs compute capability {MIN_CAPABILITY}, not {capability}"
    return None


def number_of(name: str, tensor: Tensor) -> int:
    """The core's number of the dtype of `tensor`.

    Raises:
        ValueError: the kernels do not compute in it, or the tensor is not on a GPU.
    """
    number = DTYPES.get(tensor.dtype)
    if number is None or not tensor.is_cuda:
        raise ValueError(
            f"{name}: expected one of {[str(d) for d in DTYPES]} on a CUDA device, "
            f"got {tensor.dtype} on {tensor.device}"
        )
    return number


def start_of(tensor: Tensor | None) -> int:
    """Where `tensor`, which was checked before, starts; 0 for one that is absent."""
    return 0 if tensor is None else tensor.data_ptr()


def stream_of(tensor: Tensor) -> int:
    """The current stream of the tensor's device."""
    return int(torch.cuda.current_stream(tensor.device).cuda_stream)


def allocator(device: torch.device) -> Callable[[int], int]:
    """Bytes -> where so many start; they live as long as this function.

    Nothing is zeroed: a workspace holds nothing between two launches. Torch gives the memory to
    later calls of the same stream, which therefore find it free.
    """
    kept = []

    def allocate(num_bytes: int) -> int:
        kept.append(torch.empty(num_bytes, dtype=torch.uint8, device=device))
        return kept[-1].data_ptr()

    return allocate
