"""Runs every native op on tensors that end, or start, at a page which must not be touched.

A program of its own (`python -m tests.kernels.guarded`): an access outside a tensor kills it, and
the last line it wrote says in which call. Its operands are aligned to one element only.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from kangaroo_kernels import Backend, Target, testing
from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.kernel_set import IMPLS, load_impl
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.testing import Heads
from tests.kernels.adapters import EPS, SIZES, refresh_inputs, step_inputs

PAGE = mmap.PAGESIZE
ANONYMOUS_PRIVATE = 0x22
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
EMPTY = torch.empty


def guarded(shape: tuple[int, ...], dtype: torch.dtype, at_end: bool) -> Tensor:
    """A tensor between two forbidden pages, touching one of them. Its memory is never freed."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes == 0:
        return EMPTY(shape, dtype=dtype)
    body = -(-num_bytes // PAGE) * PAGE
    base = LIBC.mmap(None, body + 2 * PAGE, 3, ANONYMOUS_PRIVATE, -1, 0)
    LIBC.mprotect(base, PAGE, 0)
    LIBC.mprotect(base + PAGE + body, PAGE, 0)
    start = base + PAGE + (body - num_bytes if at_end else 0)
    memory = (ctypes.c_byte * num_bytes).from_address(start)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def calls() -> Iterator[tuple[str, dict[str, Any]]]:
    """Ops and arguments, sizes no multiple of any vector."""
    for width, num_out in [(40, 37), (193, 3), (65, 130), (1, 1), (16, 64)]:
        norm = testing.random_norm_weight(width)
        weight = testing.random_weight(num_out, width)
        for n in (1, 3, 17):
            x, out = torch.randn(1, n, width), torch.randn(1, n, num_out)
            gates = {"gate_up": torch.cat([weight, weight]), "down": weight.T.contiguous()}
            extras = {"bias": torch.randn(num_out), "norm_weight": norm, "residual": out}
            yield "linear", {"x": x, "weight": weight, "eps": EPS, **extras}
            yield "rms_norm", {"x": x, "weight": norm, "eps": EPS}
            yield "gated_mlp", {"x": x, **gates, "norm_weight": norm, "eps": EPS}
            ids = torch.arange(0, num_out, 2, dtype=torch.int32)
            for head in (DraftHead(weight), DraftHead(weight, token_ids=ids)):
                ranking = {"h": x, "head": head, "norm_weight": norm, "eps": EPS}
                yield "top1_confidence", ranking
                yield "topk_confidence", {**ranking, "k": min(5, head.num_ids)}
    for heads in (Heads(3, 3, 64), Heads(6, 2, 40), Heads(5, 1, 80), Heads(2, 1, 2)):
        for n in (1, 3, 17):
            nodes = testing.chain_nodes([64 - n], n)  # up to the last slot of the cache
            inputs = testing.attention_inputs(heads, nodes)
            caches = {
                "k_cache": inputs.k_cache[:, :, :64].contiguous(),
                "v_cache": inputs.v_cache[:, :, :64].contiguous(),
            }
            yield "tree_attention", {"q": inputs.q, **caches, "nodes": nodes, "scale": inputs.scale}
            qkv = torch.randn(1, n, (heads.h_q + 2 * heads.h_kv) * heads.head_dim)
            rope = testing.rope_table(64, heads.head_dim)
            yield "rope_append_kv", {"qkv": qkv, **caches, "nodes": nodes, "rope": rope}
    yield from adapter_calls()
    cache = torch.randn(3, 1, 2, 10, 5)
    lengths = torch.tensor([2], dtype=torch.int32), torch.tensor([6], dtype=torch.int32)
    path = {"path": torch.tensor([[0, 3]]), "path_len": lengths[0], "cache_seqlens": lengths[1]}
    yield "compact_kv", {"caches": [cache], **path}
    tokens, parents = torch.tensor([[0, 36, 4]]), torch.tensor([[-1, 0, 1]])
    logits = torch.zeros(1, 3, 37).index_fill(2, torch.tensor([36]), 1.0)
    yield "verify_tree", {"logits": logits, "tokens": tokens, "parents": parents}


def adapter_calls() -> Iterator[tuple[str, dict[str, Any]]]:
    """adapter_step and adapter_refresh, up to the last slot of the cache."""
    names = ("h", "weights", "k_cache", "v_cache", "nodes", "rope")
    for heads, width in SIZES:
        for n in (1, 3, 17):
            nodes = testing.chain_nodes([64 - n], n)
            for op, make in (("adapter_step", step_inputs), ("adapter_refresh", refresh_inputs)):
                args = dict(zip(names, make(heads, width, nodes).args, strict=True))
                for cache in ("k_cache", "v_cache"):
                    args[cache] = args[cache][:, :, :64].contiguous()
                if op == "adapter_refresh":
                    args["states"] = args.pop("h")
                yield op, {**args, "eps": EPS}


def guard(value: Any, at_end: bool) -> Any:
    """The argument with every tensor in it moved beside a forbidden page."""
    if isinstance(value, Tensor):
        return guarded(tuple(value.shape), value.dtype, at_end).copy_(value)
    if isinstance(value, list):
        return [guard(item, at_end) for item in value]
    if isinstance(value, tuple):
        moved = [guard(item, at_end) for item in value]
        return type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)
    if isinstance(value, NodeBatch):
        positions, seqlens = guard(value.positions, at_end), guard(value.cache_seqlens, at_end)
        return NodeBatch(positions, seqlens, value.first_node)
    return value


def guarded_empty(
    at_end: bool, *shape: Any, dtype: torch.dtype = torch.float32, **_: Any
) -> Tensor:
    """`torch.empty` for results."""
    sizes = shape if not shape or isinstance(shape[0], int) else shape[0]
    return guarded(tuple(sizes), dtype, at_end)


def main() -> None:
    target = Target(torch.device("cpu"), torch.float32, head_dim=64)
    for at_end in (True, False):
        for op, arguments in calls():
            if Backend.NATIVE not in IMPLS[op]:
                continue
            shapes = [list(x.shape) for x in arguments.values() if isinstance(x, Tensor)]
            sys.stdout.write(f"{op} {shapes} {'before' if at_end else 'behind'} a forbidden page\n")
            sys.stdout.flush()
            operands = {name: guard(value, at_end) for name, value in arguments.items()}
            new = partial(guarded_empty, at_end)
            with (
                patch.object(torch, "empty", new),
                patch.object(torch, "empty_like", lambda x, end=at_end: guard(x, end)),
                patch.object(Tensor, "new_empty", lambda x, *sizes, new=new: new(*sizes)),
            ):
                load_impl(op, Backend.NATIVE, target)(**operands)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main()
