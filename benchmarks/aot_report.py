"""Compile every Triton kernel as its launcher launches it, for GPUs that need not be there.

`python benchmarks/aot_report.py` prints registers, spills, shared memory and tensor-core
instructions of each kernel; `--json` one object per kernel. Exit status 1: a kernel does not
compile, spills, needs more shared memory than the architecture has, or multiplies without tensor
cores.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks.models import EPS, LLAMA_8B, QWEN3_8B, VICUNA_7B, Model
from kangaroo_kernels.adapter_weights import RefreshWeights, StepWeights
from kangaroo_kernels.draft_head import QUANTIZED, DraftChain, DraftHead
from kangaroo_kernels.draft_trees import DraftTrees, Seedbed, widths
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.testing import Heads
from kangaroo_kernels.triton_rank import FLOAT8_CAPABILITY

# Compute capability -> shared memory of a block, in bytes.
ARCHITECTURES = {80: 166912, 89: 101376, 90: 232448, 100: 232448, 120: 101376}
NUM_SLOTS = 8192
NUM_NODES = (1, 8, 16)
OTHER_HEADS = (Heads(32, 8, 64), Heads(32, 32, 80), Heads(40, 8, 96), Heads(8, 1, 256))
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Build:
    """One kernel for one architecture.

    Attributes:
        tensor_cores: instruction kinds; empty where the kernel multiplies no matrices.
        faults: why it is not good enough.
    """

    kernel: str
    case: str
    dtype: str
    sm: int
    num_registers: int
    spilled_bytes: int
    shared_bytes: int
    tensor_cores: tuple[str, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """One call of an op; `case` says of which model."""

    op: str
    case: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


class AbsentGPU:
    """What Triton asks of a driver in order to compile."""

    def __init__(self, sm: int):
        self.target = GPUTarget("cuda", sm, 32)

    def get_current_device(self) -> int:
        return self.target.arch

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self.target


def calls(dtype: torch.dtype, sm: int) -> Iterator[Call]:
    """Every op as models call it on `sm`, for a single row and for several. Memory is reserved,
    never touched.
    """

    def new(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    for model, n in product((VICUNA_7B, LLAMA_8B, QWEN3_8B), NUM_NODES):
        yield from layer_calls(model, n, new)
        yield from draft_calls(model, n, new, sm)
        yield from attention_calls(model.name, model.heads, n, new)
        yield from adapter_calls(model, n, new)
    yield from growth_calls()
    for heads, n in product(OTHER_HEADS, NUM_NODES):
        yield from attention_calls(f"D={heads.head_dim}", heads, n, new)


def layer_calls(model: Model, n: int, new: Callable[..., torch.Tensor]) -> Iterator[Call]:
    """What a layer of the target multiplies, and its first and last steps."""
    name, c, x, norm = model.name, model.hidden, new(1, n, model.hidden), new(model.hidden)
    one, ids = torch.ones(1, dtype=torch.int32), torch.zeros(1, n, dtype=torch.int64)
    qkv = {"norm_weight": norm, "eps": EPS}
    yield Call("embedding", name, (ids, new(model.vocab, c)))
    yield Call("linear", f"{name} qkv", (x, new(model.qkv_width, c)), qkv)
    logits = {**qkv, "out": torch.empty(1, n, model.vocab)}
    yield Call("linear", f"{name} logits", (x, new(model.vocab, c)), logits)
    yield Call("linear", f"{name} o", (x, new(c, c)), {"residual": x})
    mlp = (x, new(2 * model.ffn, c), new(c, model.ffn), norm, EPS)
    yield Call("gated_mlp", name, mlp)
    yield Call("rms_norm", name, (x, norm, EPS))
    yield Call("verify_tree", name, (new(1, n, model.vocab), ids, ids), {"successors": ids.clone()})
    caches = [new(64, 1, model.heads.h_kv, NUM_SLOTS, 128), new(1, 1, 1, NUM_SLOTS, c)]
    yield Call("compact_kv", name, (caches, torch.zeros(1, 8, dtype=torch.int64), one, one))


def draft_calls(model: Model, n: int, new: Callable[..., torch.Tensor], sm: int) -> Iterator[Call]:
    """The ranking by every kind of head."""
    x, norm, one = new(1, n, model.hidden), new(model.hidden), torch.ones(1, dtype=torch.int32)
    ids = torch.zeros(1, 7, dtype=torch.int64)
    for kind, head in draft_heads(model, new, sm):
        chain = DraftChain(ids, ids.int(), one, one, one.float())
        where = model.name + kind
        yield Call("top1_confidence", where, (x, head, norm, EPS), {"chain": chain})
        yield Call("topk_confidence", where, (x, head, norm, EPS, 10))
        yield Call("draft_logits", where, (x, head, norm, EPS))


def draft_heads(
    model: Model, new: Callable[..., torch.Tensor], sm: int
) -> Iterator[tuple[str, DraftHead]]:
    """The target's own head, of some tokens, and the copies in one byte that `sm` reads."""
    head, shape = new(model.vocab, model.hidden), (model.vocab, model.hidden)
    yield "", DraftHead(head)
    yield " ids", DraftHead(head, token_ids=torch.arange(0, model.vocab, 4).int())
    for dtype in QUANTIZED if divmod(sm, 10) >= FLOAT8_CAPABILITY else QUANTIZED[:1]:
        short = str(dtype).removeprefix("torch.")
        yield f" {short}", DraftHead(torch.empty(shape, dtype=dtype), torch.empty(model.vocab))


def growth_calls() -> Iterator[Call]:
    """grow_tree of the default tree and of the largest, first and later passes."""
    for max_nodes, depth in ((16, 6), (64, 8)):
        ids = torch.zeros(1, max_nodes, dtype=torch.int64)
        one = torch.ones(1, dtype=torch.int32)
        trees = DraftTrees(DraftChain(ids, ids.int(), one, one, one.float()), ids, ids)
        places = widths(max_nodes, depth)
        bed = Seedbed.empty(1, 1 + sum(places), 10, ids.device)
        for first, num_new in ((0, 1), (1, places[0])):
            ranked = torch.zeros(1, num_new, 10, dtype=torch.int64)
            rule = {"first": first, "width": 2, "passes_left": 3, "sharpness": 1.5}
            yield Call(
                "grow_tree", f"{max_nodes} nodes", (ranked, ranked.float(), bed, trees), rule
            )


def attention_calls(
    name: str, heads: Heads, n: int, new: Callable[..., torch.Tensor]
) -> Iterator[Call]:
    """tree_attention over a chain and a tree, rope_append_kv with and without norms."""
    cache = new(1, heads.h_kv, NUM_SLOTS, heads.head_dim)
    zeros = torch.zeros(1, n, dtype=torch.int32)
    chain = NodeBatch(zeros, zeros[0, :1], 16 - n)
    tree = NodeBatch(zeros, zeros[0, :1], 16 - n, torch.zeros(1, n, dtype=torch.int64))
    q = new(1, n, heads.h_q, heads.head_dim)
    for kind, nodes in (("chain", chain), ("tree", tree)):
        yield Call("tree_attention", f"{name} {kind}", (q, cache, cache, nodes, 1.0))
    qkv = new(1, n, (heads.h_q + 2 * heads.h_kv) * heads.head_dim)
    rope = torch.empty(2, NUM_SLOTS, heads.head_dim // 2)
    for kind, norm in (("", None), (" normed", new(heads.head_dim))):
        norms = {"q_norm": norm, "k_norm": norm, "eps": EPS}
        yield Call("rope_append_kv", name + kind, (qkv, cache, cache, chain, rope), norms)


def adapter_calls(model: Model, n: int, new: Callable[..., torch.Tensor]) -> Iterator[Call]:
    """adapter_step and adapter_refresh."""
    c, heads = model.hidden, model.heads
    h, norm, cache = new(1, n, c), new(c), new(1, heads.h_kv, NUM_SLOTS, heads.head_dim)
    zeros = torch.zeros(1, n, dtype=torch.int32)
    rope = torch.empty(2, NUM_SLOTS, heads.head_dim // 2)
    where = (cache, cache, NodeBatch(zeros, zeros[0, :1]), rope)
    step = StepWeights(norm, new(model.qkv_width, c), new(c, heads.h_q * heads.head_dim))
    yield Call("adapter_step", model.name, (h, step, *where), {"eps": EPS})
    deep = RefreshWeights(norm, norm, norm, new(2 * heads.h_kv * heads.head_dim, 3 * c))
    yield Call("adapter_refresh", model.name, ((h, h, h), deep, *where), {"eps": EPS})


@contextmanager
def compiling(sm: int, built: list[tuple[str, Any]]) -> Iterator[None]:
    """Launches compile for `sm` and launch nothing; (name, kernel) is appended to `built`."""
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        built.append((self.__name__, run(self, *args, grid=grid, warmup=True, **kwargs)))

    triton.runtime.driver.set_active(AbsentGPU(sm))
    with patch.object(JITFunction, "run", compile_only):
        yield


def resources(kernel: Any) -> tuple[int, int]:
    """Registers per thread and bytes of local memory (stack and spills) of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(TOOLS / "cuobjdump"), "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
    registers, stack, local = re.search(
        r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", said.stdout + said.stderr
    ).groups()
    return int(registers), int(stack) + int(local)


def judge(name: str, kernel: Any, case: str, dtype: torch.dtype, sm: int) -> Build:
    """What the compiler made of one kernel."""
    registers, spilled = resources(kernel)
    kinds = sorted(set(re.findall(r"wgmma|mma\.sync|tcgen05\.mma", kernel.asm["ptx"])))
    faults = []
    if spilled:
        faults.append(f"{spilled} bytes of local memory")
    if kernel.metadata.shared > ARCHITECTURES[sm]:
        faults.append(f"{kernel.metadata.shared} bytes of shared memory")
    if dtype != torch.float32 and "tt.dot" in kernel.asm["ttir"] and not kinds:
        faults.append("no tensor cores")
    return Build(
        kernel=name,
        case=case,
        dtype=str(dtype).removeprefix("torch."),
        sm=sm,
        num_registers=registers,
        spilled_bytes=spilled,
        shared_bytes=kernel.metadata.shared,
        tensor_cores=tuple(kinds),
        faults=tuple(faults),
    )


def builds(architectures: list[int], dtypes: list[torch.dtype], case: str) -> Iterator[Build]:
    """Every kernel of every op, each distinct build once; of calls whose case contains `case`."""
    for sm, dtype in product(architectures, dtypes):
        seen: set[str] = set()
        programs: dict[tuple[str, str], list[str]] = {}  # of a call, whatever its number of rows
        for call in calls(dtype, sm):
            if case not in call.case:
                continue
            module = import_module(f"kangaroo_kernels.{call.op}.triton_kernel")
            built: list[tuple[str, Any]] = []
            with compiling(sm, built):
                getattr(module, call.op)(*call.args, **call.kwargs)
            hashes = [kernel.hash for _, kernel in built]
            same = programs.setdefault((call.op, call.case), hashes) == hashes
            for name, kernel in built:
                if kernel.hash not in seen:
                    seen.add(kernel.hash)
                    build = judge(name, kernel, call.case, dtype, sm)
                    other = () if same else ("another program for another number of rows",)
                    yield replace(build, faults=build.faults + other)


def main() -> None:
    """Print, and fail where a build has faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sm", type=int, nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--dtype", nargs="*", default=["bfloat16", "float16"])
    parser.add_argument("--case", default="", help="only calls whose case contains this")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    bad = 0
    dtypes = [getattr(torch, name) for name in arguments.dtype]
    for build in builds(arguments.sm, dtypes, arguments.case):
        bad += bool(build.faults)
        if arguments.json:
            print(json.dumps(asdict(build)))
            continue
        print(
            f"{build.kernel:24} {build.case:24} {build.dtype:9} sm_{build.sm:<4}"
            f"{build.num_registers:4} registers {build.shared_bytes:7} bytes shared  "
            f"{' '.join(build.tensor_cores):10} {'; '.join(build.faults)}"
        )
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
