"""Runs every op on tensors that end, or start, at a page which must not be touched.

A program of its own (`python -m tests.kernels.guarded native`, or `triton` in the interpreter): an
access outside a tensor kills it, and the last line it wrote says in which call. Its operands are
aligned to one element only.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from kangaroo_kernels import Backend, testing
from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.draws import Draw, Draws
from kangaroo_kernels.kernel_set import IMPLS, MODULES
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.testing import Heads
from tests.kernels.adapters import EPS, SIZES, refresh_inputs, step_inputs
from tests.kernels.copies import Texts
from tests.kernels.growing import LAST_PASS, PASS, Bed
from tests.kernels.guarded_wholes import WHOLES, implementation, whole_calls
from tests.kernels.rounds import Ending

PAGE = mmap.PAGESIZE
ANONYMOUS_PRIVATE = 0x22
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
EMPTY = torch.empty
CPU = torch.device("cpu")
HOSTILE = (-1, 66, -(2**63))


WITHOUT_INTEGERS = {"linear", "rms_norm", "gated_mlp"}


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


def calls(node_counts: tuple[int, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ops and arguments, sizes no multiple of any vector."""
    for width, num_out in [(40, 37), (193, 3), (65, 130), (1, 1), (16, 64)]:
        norm = testing.random_norm_weight(width)
        weight = testing.random_weight(num_out, width)
        for n in node_counts:
            x, out = torch.randn(1, n, width), torch.randn(1, n, num_out)
            gates = {"gate_up": torch.cat([weight, weight]), "down": weight.T.contiguous()}
            extras = {"bias": torch.randn(num_out), "norm_weight": norm, "residual": out}
            yield "linear", {"x": x, "weight": weight, "eps": EPS, **extras}
            yield "embedding", {"tokens": torch.randint(num_out, (1, n)), "weight": weight}
            yield "rms_norm", {"x": x, "weight": norm, "eps": EPS}
            yield "gated_mlp", {"x": x, **gates, "norm_weight": norm, "eps": EPS}
            ids = torch.arange(0, num_out, 2, dtype=torch.int32)
            for head in (DraftHead(weight), DraftHead(weight, token_ids=ids)):
                ranking = {"h": x, "head": head, "norm_weight": norm, "eps": EPS}
                yield "top1_confidence", ranking
                yield "topk_confidence", {**ranking, "k": min(5, head.num_ids)}
                yield "draft_logits", ranking
    for heads in (Heads(3, 3, 64), Heads(6, 2, 40), Heads(5, 1, 80), Heads(2, 1, 2)):
        for n in node_counts:
            nodes = testing.chain_nodes([64 - n], n)  # up to the last slot of the cache
            inputs = testing.attention_inputs(heads, nodes)
            caches = {
                "k_cache": inputs.k_cache[:, :, :64].contiguous(),
                "v_cache": inputs.v_cache[:, :, :64].contiguous(),
            }
            yield "tree_attention", {"q": inputs.q, **caches, "nodes": nodes, "scale": inputs.scale}
            qkv = torch.randn(1, n, (heads.h_q + 2 * heads.h_kv) * heads.head_dim)
            rope = testing.rope_table(64, heads.head_dim)
            tree = testing.tree_nodes(testing.random_parents(1, n), [64 - n])
            yield "tree_attention", {"q": inputs.q, **caches, "nodes": tree, "scale": inputs.scale}
            yield "rope_append_kv", {"qkv": qkv, **caches, "nodes": nodes, "rope": rope}
    yield from adapter_calls(node_counts)
    yield from token_calls()
    yield from device_calls()


def token_calls() -> Iterator[tuple[str, dict[str, Any]]]:
    """Chains that are appended to, by the best token and by a draw; trees that are verified, and
    what is kept of them.
    """
    i32 = torch.int32
    chain = DraftChain(
        torch.tensor([[3, -1]]), *torch.tensor([[[7, -1]]], dtype=i32), torch.ones(1, dtype=i32),
        torch.zeros(1, dtype=i32), torch.ones(1),
    )  # fmt: skip
    ranking = {"h": torch.randn(1, 2, 5), "head": DraftHead(torch.randn(9, 5))}
    yield "top1_confidence", {**ranking, "norm_weight": torch.ones(5), "eps": EPS, "chain": chain}
    for num_ids, top_k in ((7, 5), (5003, 0)):
        draw = Draw(temperature=0.7, top_k=top_k, top_p=0.9, min_p=0.01, seed=9)
        drawing = {"logits": torch.randn(1, 2, num_ids), "draws": Draws.of([draw], CPU)}
        ids, positions = torch.arange(num_ids, dtype=i32), torch.zeros(1, 2, dtype=i32)
        places = {"positions": positions, "token_ids": ids, "chain": chain}
        yield "draw_tokens", {**drawing, **places, "k": 3}
    cache = torch.randn(3, 1, 2, 10, 5)
    path = {"path": torch.tensor([[0, 3, 2**40]]), "path_len": torch.tensor([2]).int()}
    yield "compact_kv", {"caches": [cache], **path, "cache_seqlens": torch.tensor([6]).int()}
    tokens, parents = torch.tensor([[0, 36, 4]]), torch.tensor([[-1, 0, 1]])
    logits = torch.zeros(1, 3, 37).index_fill(2, torch.tensor([36]), 1.0)
    yield "verify_tree", {"logits": logits, "tokens": tokens, "parents": parents}
    made = {"choices": torch.tensor([[36, 4, -1]])}
    yield "verify_tree", {"logits": logits, "tokens": tokens, "parents": parents, **made}


def device_calls() -> Iterator[tuple[str, dict[str, Any]]]:
    """commit_path; copy_draft up to the last slot; grow_tree: a pass that adds inner nodes, and the
    last one.
    """
    names = ("verdict", "chain", "exit_states", "places", "done")
    ending = dict(zip(names, Ending.of([3], [[0, 5]]).args, strict=True))
    yield "commit_path", {**ending, "lag": 1, "limit": 99}
    for tokens in ([5, 7, 8, 5, 7], [5, 7]):
        texts = Texts.of([tokens], 4, [2])
        texts.text = texts.text[:, : len(tokens)].contiguous()
        yield "copy_draft", {**vars(texts), "size": 2, "count": 3}
    for rule in (PASS, LAST_PASS):
        rows, bed = torch.rand(1, 1, 3), Bed.of([3], 5, 4, 3)
        ranked = {"tokens": torch.arange(3).expand(1, 1, 3).contiguous(), "probabilities": rows}
        yield "grow_tree", {**ranked, **vars(bed), **rule}


def adapter_calls(node_counts: tuple[int, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """adapter_step and adapter_refresh, up to the last slot of the cache."""
    names = ("h", "weights", "k_cache", "v_cache", "nodes", "rope")
    for heads, width in SIZES:
        for n in node_counts:
            nodes = testing.chain_nodes([64 - n], n)
            for op, make in (("adapter_step", step_inputs), ("adapter_refresh", refresh_inputs)):
                args = dict(zip(names, make(heads, width, nodes).args, strict=True))
                for cache in ("k_cache", "v_cache"):
                    args[cache] = args[cache][:, :, :64].contiguous()
                if op == "adapter_refresh":
                    args["states"] = args.pop("h")
                yield op, {**args, "eps": EPS}


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The argument with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list):
        return [mapped(item, change) for item in value]
    if isinstance(value, tuple):
        items = [mapped(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, NodeBatch):
        tensors = (value.positions, value.cache_seqlens, value.ancestors)
        positions, seqlens, ancestors = mapped(tensors, change)
        return NodeBatch(positions, seqlens, value.first_node, ancestors)
    return value


def moved(x: Tensor, at_end: bool) -> Tensor:
    """A copy beside a forbidden page."""
    return guarded(tuple(x.shape), x.dtype, at_end).copy_(x)


def spoilt(x: Tensor, fill: int) -> Tensor:
    """Lengths, positions, ids and masks that are all `fill`, cut to their dtype's range."""
    if x.is_floating_point():
        return x
    info = torch.iinfo(x.dtype)
    return torch.full_like(x, min(max(fill, info.min), info.max))


def guarded_empty(
    at_end: bool, *shape: Any, dtype: torch.dtype = torch.float32, **_: Any
) -> Tensor:
    """`torch.empty` for results."""
    sizes = shape if not shape or isinstance(shape[0], int) else shape[0]
    return guarded(tuple(sizes), dtype, at_end)


def run(op: str, backend: Backend, arguments: dict[str, Any], at_end: bool) -> None:
    """Call the op on guarded operands; its results are guarded too."""
    shapes = [list(x.shape) for x in arguments.values() if isinstance(x, Tensor)]
    sys.stdout.write(f"{op} {shapes} {'before' if at_end else 'behind'} a forbidden page\n")
    sys.stdout.flush()
    operands = {k: mapped(v, partial(moved, at_end=at_end)) for k, v in arguments.items()}
    new = partial(guarded_empty, at_end)

    def new_like(x: Tensor, *sizes: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        return new(*sizes, dtype=dtype or x.dtype)

    with (
        patch.object(torch, "empty", new),
        patch.object(torch, "empty_like", lambda x: moved(x, at_end)),
        patch.object(Tensor, "new_empty", new_like),
    ):
        implementation(op, backend)(**operands)


@contextmanager
def unchecked() -> Iterator[None]:
    """Values are not looked at before a launch, as on a GPU."""
    with ExitStack() as stack:
        for op in IMPLS:
            import_module(f"kangaroo_kernels.{op}.{MODULES[Backend.TRITON]}")
        for name, module in list(sys.modules.items()):
            for check in {"require_within", "require_increasing", "require_paths"} & vars(
                module
            ).keys():
                if name.startswith("kangaroo_kernels"):
                    stack.enter_context(patch.object(module, check, lambda *_: None))
        yield


def main(backend: Backend) -> None:
    node_counts = (1, 3, 17) if backend == Backend.NATIVE else (1, 3)  # the interpreter is slow
    dtype = torch.float32 if backend == Backend.NATIVE else torch.bfloat16
    for at_end in (True, False):
        for op, arguments in [*calls(node_counts), *whole_calls(dtype)]:
            if backend in WHOLES.get(op, IMPLS.get(op, ())):
                run(op, backend, arguments, at_end)
    if backend == Backend.TRITON:
        with unchecked():
            made = [*calls((3,)), *whole_calls(dtype)]
            for fill, (op, arguments) in product(HOSTILE, made):
                if op not in WITHOUT_INTEGERS:
                    bad = {k: mapped(v, partial(spoilt, fill=fill)) for k, v in arguments.items()}
                    run(op, backend, bad, at_end=fill > 0)
    sys.stdout.write("done\n")


def interpret() -> None:
    """As GPUs do, where integers that are too large wrap around."""
    from tests.kernels.interpreter import faithful

    with faithful(check=lambda *_: None):
        main(Backend.TRITON)


if __name__ == "__main__":
    interpret() if sys.argv[1] == Backend.TRITON.value else main(Backend(sys.argv[1]))
