"""Every Triton kernel compiles for GPUs that are not here, without spills and with tensor cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kangaroo_kernels.kernel_set import IMPLS, Backend

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
@pytest.mark.parametrize("sm", [80, 89, 90, 100, 120])
def test_kernels_compile_without_spills(sm: int) -> None:
    command = [sys.executable, "-m", "benchmarks.aot_report", "--json", "--sm", str(sm)]
    command += ["--dtype", "bfloat16", "--case", "Llama-3.1-8B"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=compiling()
    )
    builds = [json.loads(line) for line in done.stdout.splitlines()]
    faults = {build["kernel"]: build["faults"] for build in builds if build["faults"]}
    assert done.returncode == 0, f"{faults}\n{done.stderr}"
    kernels = {build["kernel"] for build in builds}
    assert len(kernels) >= sum(Backend.TRITON in row for row in IMPLS.values())


def compiling() -> dict[str, str]:
    """The environment without the interpreter."""
    return {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
