"""Native ops touch no byte outside their tensors, whatever the sizes and the alignment."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mmap and mprotect of Linux")
@pytest.mark.skipif(
    not find_spec("kangaroo_kernels._C"), reason="the native extension is not built"
)
def test_native_ops_stay_inside_their_tensors() -> None:
    command = [sys.executable, "-m", "tests.kernels.guarded"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stdout.splitlines()[-1] if done.stdout else "nothing ran"
    assert done.returncode == 0, f"exit status {done.returncode} in {last}\n{done.stderr}"
    assert last == "done"
