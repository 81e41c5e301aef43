"""The example programs, built against an installed libkangaroo once per run."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from kangaroo_kernels import native
from tests.source_tree import ROOT

PROGRAMS = ("decode_cpp", "decode_c")
Embedded = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the programs lie in; skips where they cannot be built."""
    tools = _tools()
    info = native.build_info()
    if info is None:
        pytest.skip(f"the C++ extension is missing: {native.IMPORT_ERROR}")
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # workers build it once
    with (root / "embed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "embed" / "built").exists():
            _build(root / "embed", tools, info["isa"])
            (root / "embed" / "built").touch()
    return root / "embed" / "programs"


@pytest.fixture
def embedded(programs: Path) -> Embedded:
    """Run a program: embedded("decode_c", weights, 64, 6, 0.4, *prompt)."""

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(programs / program), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def _tools() -> dict[str, str]:
    """cmake, ninja and a compiler: of this environment, which need not be active, or of the
    system.
    """
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    compilers = (os.environ.get("CXX", "c++"), "g++", "clang++")
    found = {name: shutil.which(name, path=path) for name in ("cmake", "ninja")}
    found["compiler"] = next(filter(None, map(shutil.which, compilers)), None)
    for name, place in found.items():
        if place is None:
            pytest.skip(f"no {name} to build with")
    return {name: str(place) for name, place in found.items()}


def _build(root: Path, tools: dict[str, str], isa: str) -> None:
    """Configure, build and install libkangaroo for what serves Python here; then build against it
    alone.
    """
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    with (root / "log").open("w") as log:

        def cmake(*arguments: object) -> None:
            command = [tools["cmake"], *map(str, arguments)]
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                raise AssertionError((root / "log").read_text()[-4000:])

        generator = ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools['ninja']}")
        options = ("-DKANGAROO_CUDA=OFF", "-DBUILD_TESTING=OFF", "-DKANGAROO_WERROR=OFF")
        isas = "" if isa == "portable" else isa
        cmake(*generator, *options, f"-DKANGAROO_ISAS={isas}", "-S", ROOT, "-B", root / "library")
        cmake("--build", root / "library", "-j", 2)
        cmake("--install", root / "library", "--prefix", root / "prefix")
        source = ROOT / "csrc" / "tests" / "embed"
        prefix = f"-DCMAKE_PREFIX_PATH={root / 'prefix'}"
        cmake(*generator, prefix, "-S", source, "-B", root / "programs")
        cmake("--build", root / "programs", "-j", 2)
