"""What the native implementations share: the C++ extension, and addresses that are safe to pass."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from kangaroo_kernels.checks import require, require_head, require_planes, sizes
from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.draft_trees import DraftTrees
from kangaroo_kernels.kernel_set import Target, UnsupportedError
from kangaroo_kernels.nodes import NodeBatch

HOW_TO_BUILD = (
    "reinstall with a C++17 compiler; "
    "with KANGAROO_BUILD_EXT=1 `pip install` fails and shows the compiler's message"
)

CPU = torch.device("cpu")
DTYPES = {torch.float32: 0, torch.bfloat16: 1}  # kangaroo_dtype of csrc/include/kangaroo/tensor.h


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
    if target.dtype not in DTYPES:
        return f"computes in float32 and bfloat16, not in {target.dtype}"
    return None


def attention_unsupported(target: Target) -> str | None:
    """Why no native op that attends can run on `target`."""
    reason = unsupported(target)
    if reason is None and target.head_dim > C.MAX_HEAD_DIM:
        return f"head_dim: expected at most {C.MAX_HEAD_DIM}, got {target.head_dim}"
    return reason


def number_of(name: str, tensor: Tensor) -> int:
    """The core's number of the dtype of `tensor`.

    Raises:
        ValueError: the core does not compute in it.
    """
    number = DTYPES.get(tensor.dtype)
    if number is None:
        raise ValueError(f"{name}: expected float32 or bfloat16, got {tensor.dtype}")
    return number


def address(name: str, tensor: Tensor, shape: tuple[int, ...] | None, dtype: torch.dtype) -> int:
    """Where `tensor` starts. `shape` is None where the sizes of the call were read from it.

    Raises:
        ValueError: it is not a contiguous CPU tensor of this shape and dtype. Nothing is copied.
    """
    right = tensor.dtype is dtype and (shape is None or tensor.shape == shape)
    if not (right and tensor.is_cpu and tensor.is_contiguous()):
        require(name, tensor, shape, dtype, CPU)  # in whose words it is refused
    return tensor.data_ptr()


def optional_address(
    name: str, tensor: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype
) -> int:
    """Where `tensor` starts; 0 for one that is absent."""
    return 0 if tensor is None else address(name, tensor, shape, dtype)


def kv_address(
    k_cache: Tensor, v_cache: Tensor, batch: int, dtype: torch.dtype
) -> tuple[int, int, int, int, int]:
    """Keys, values, and their heads, slots and head_dim; both [batch, H_kv, S, D]."""
    shape = (batch, *sizes("k_cache", k_cache, 4)[1:])
    k = address("k_cache", k_cache, shape, dtype)
    return k, address("v_cache", v_cache, shape, dtype), *shape[1:]


def planes_address(
    name: str, kv: Tensor, num_planes: int, batch: int, dtype: torch.dtype
) -> tuple[tuple[int, int, int, int, int], int]:
    """First keys, first values, and their heads, slots and head_dim; elements from one plane to the
    next. kv [num_planes, batch, H_kv, S, D], at least two planes, each contiguous.
    """
    planes, heads, num_slots, width, stride = require_planes(name, kv, batch, dtype, CPU)
    if planes != num_planes:
        raise ValueError(f"{name}: expected {num_planes} planes of keys and values, got {planes}")
    first = kv.data_ptr()
    return (first, first + stride * kv.itemsize, heads, num_slots, width), stride


def rope_address(rope: Tensor, head_dim: int) -> tuple[int, int, int]:
    """Table, positions and half of a head's width; rope [2, P, D / 2]."""
    num_positions = sizes("rope", rope, 3)[1]
    shape = (2, num_positions, head_dim // 2)
    return address("rope", rope, shape, torch.float32), *shape[1:]


def nodes_address(nodes: NodeBatch, at: tuple[int, int]) -> tuple[int, int, int, int, int, int]:
    """Positions, lengths, ancestors or 0, batch, nodes, first node; for rows `at` [B, N]."""
    return (
        address("nodes.positions", nodes.positions, at, torch.int32),
        address("nodes.cache_seqlens", nodes.cache_seqlens, at[:1], torch.int32),
        optional_address("nodes.ancestors", nodes.ancestors, at, torch.int64),
        *at,
        nodes.first_node,
    )


def trees_address(trees: DraftTrees) -> tuple[tuple[int, ...], int, int]:
    """Nodes with the batch and their number, parents, ancestors; what they are is known already."""
    nodes = (*(tensor.data_ptr() for tensor in trees.nodes), *trees.parents.shape)
    return nodes, trees.parents.data_ptr(), trees.ancestors.data_ptr()


def head_address(head: DraftHead, h: Tensor, k: int) -> tuple[int, int, int, int, int]:
    """Weight, token ids or 0, how many rows and ids there are, scale or 0; for `k` tokens behind
    `h`.

    Raises:
        UnsupportedError: the head is in float8.
        ValueError: see `require_head`.
    """
    require_head(head, h, k)
    if head.weight.dtype not in (*DTYPES, torch.int8):
        raise UnsupportedError(
            f"head: no native op reads {head.weight.dtype}; on the CPU they read torch.int8"
        )
    ids = 0 if head.token_ids is None else head.token_ids.data_ptr()
    scale = 0 if head.scale is None else head.scale.data_ptr()
    return head.weight.data_ptr(), ids, len(head.weight), head.num_ids, scale
