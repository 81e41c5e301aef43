"""Ops touch no byte outside their tensors, whatever the sizes and the alignment."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mmap and mprotect of Linux")
@pytest.mark.parametrize(
    ("backend", "module"), [("native", "kangaroo_kernels._C"), ("triton", "triton")]
)
def test_ops_stay_inside_their_tensors(backend: str, module: str) -> None:
    if not find_spec(module):
        pytest.skip(f"{module} is not there")
    command = [sys.executable, "-m", "tests.kernels.guarded", backend]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    last = done.stdout.splitlines()[-1] if done.stdout else "nothing ran"
    assert done.returncode == 0, f"exit status {done.returncode} in {last}\n{done.stderr}"
    assert last == "done"
