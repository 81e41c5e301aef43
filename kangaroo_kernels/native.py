"""What the native implementations share: the C++ extension, and addresses that are safe to pass."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from kangaroo_kernels.checks import require, require_head
from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.kernel_set import Target, UnsupportedError

HOW_TO_BUILD = (
    "reinstall with a C++17 compiler; "
    "with KANGAROO_BUILD_EXT=1 `pip install` fails and shows the compiler's message"
)


CPU = torch.device("cpu")


def _load() -> tuple[Any, str | None]:
    try:
        return import_module("kangaroo_kernels._C"), None
    except ImportError as error:
        return None, str(error)


# The extension, and why it is missing: one of the two is None.
C, IMPORT_ERROR = _load()


def build_info() -> dict[str, str] | None:
    """Compiler, instruction sets and CUDA architectures of the extension; None: it is missing."""
    return None if C is None else cast("dict[str, str]", C.build_info())


def unsupported(target: Target) -> str | None:
    """Why no native op can run on `target`."""
    if C is None:
        return f"the C++ extension is missing ({IMPORT_ERROR}): {HOW_TO_BUILD}"
    if target.device.type != "cpu":
        return f"runs on the CPU, not on {target.device.type}"
    if target.dtype != torch.float32:
        return f"computes in float32, not in {target.dtype}"
    return None


def attention_unsupported(target: Target) -> str | None:
    """Why no native op that attends can run on `target`."""
    reason = unsupported(target)
    if reason is None and target.head_dim > C.MAX_HEAD_DIM:
        return f"head_dim: expected at most {C.MAX_HEAD_DIM}, got {target.head_dim}"
    return reason


def address(
    name: str,
    tensor: Tensor,
    shape: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Where `tensor` starts. `shape` is left out where the sizes of the call were read from it.

    Raises:
        ValueError: it is not a contiguous CPU tensor of this shape and dtype. Nothing is copied.
    """
    require(name, tensor, shape, dtype, CPU)
    return tensor.data_ptr()


def optional_address(
    name: str,
    tensor: Tensor | None,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
) -> int:
    """Where `tensor` starts; 0 for one that is absent."""
    return 0 if tensor is None else address(name, tensor, shape, dtype)


def head_address(head: DraftHead, h: Tensor, k: int) -> tuple[int, int, int, int]:
    """Weight, token ids, and how many rows and ids there are; for `k` tokens behind `h`.

    Raises:
        UnsupportedError: the head is quantized.
        ValueError: see `require_head`.
    """
    require_head(head, h, k)
    if head.weight.dtype != torch.float32:
        raise UnsupportedError(f"head: native ops read float32, not {head.weight.dtype}")
    ids = 0 if head.token_ids is None else head.token_ids.data_ptr()
    return head.weight.data_ptr(), ids, len(head.weight), head.num_ids
