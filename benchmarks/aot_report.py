"""Compile every Triton kernel as its launcher launches it, for GPUs that need not be there.

`python benchmarks/aot_report.py` prints registers, spills, shared memory and tensor-core
instructions of each kernel; `--json` one object per kernel. Exit status 1: a kernel does not
compile, spills, needs more shared memory than the architecture has, multiplies without tensor
cores, or may start before the kernel in front has ended and does not wait for it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks.aot_calls import calls, triton_op

# Compute capability -> shared memory of a block, in bytes.
ARCHITECTURES = {80: 166912, 89: 101376, 90: 232448, 100: 232448, 120: 101376}
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
    ordered = re.findall(r"griddepcontrol\.(\w+)", kernel.asm["ptx"])
    if kernel.metadata.launch_pdl and ordered != ["wait", "launch_dependents"]:
        faults.append("may start early, and does not wait first")
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
            built: list[tuple[str, Any]] = []
            with compiling(sm, built):
                made = triton_op(call.op)(*call.args, **call.kwargs)
                if call.then:
                    getattr(made, call.method)(*call.then)
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
