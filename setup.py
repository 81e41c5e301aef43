"""Builds the C++ extension kangaroo_kernels._C with CMake; without it the package still installs and runs.

KANGAROO_BUILD_EXT=0 leaves it out, 1 fails when it cannot be built, auto (the default) warns and goes on.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
MODES = ("0", "auto", "1")
COST = "on a CPU the decode ops will run in plain PyTorch, several times slower"


class CMakeBuild(build_ext):
    """One extension, described in CMakeLists.txt; every outcome replaces what an earlier build left behind."""

    def run(self) -> None:
        mode = os.environ.get("KANGAROO_BUILD_EXT", "auto")
        if mode not in MODES:
            raise SystemExit(f"KANGAROO_BUILD_EXT: expected one of {', '.join(MODES)}, got {mode!r}")
        for stale in self.destination.glob("_C.*"):
            stale.unlink()
        if mode == "0":
            return
        try:
            self.build()
        except (ImportError, OSError, subprocess.CalledProcessError) as error:
            if mode == "1":
                raise
            self.warn(f"kangaroo: no C++ extension ({error}); {COST}")

    @property
    def destination(self) -> Path:
        return (ROOT if self.inplace else Path(self.build_lib)) / "kangaroo_kernels"

    def build(self) -> None:
        import pybind11

        tools = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
        environment = {**os.environ, "PATH": tools}
        folder = Path(self.build_temp).resolve() / "cmake"
        output = folder / "out"
        configure = [
            *("cmake", "--fresh", "-G", "Ninja", "-S", str(ROOT), "-B", str(folder)),
            *("-DKANGAROO_PYTHON=ON", "-DBUILD_TESTING=OFF", "-DKANGAROO_WERROR=OFF"),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}",
        ]
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(configure, check=True, env=environment)
        subprocess.run(["cmake", "--build", str(folder), "--target", "_C"], check=True, env=environment)
        self.destination.mkdir(parents=True, exist_ok=True)
        for extension in output.glob("_C.*"):
            shutil.copy2(extension, self.destination)

    def get_outputs(self) -> list[str]:
        return [str(path) for path in (Path(self.build_lib) / "kangaroo_kernels").glob("_C.*")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


setup(ext_modules=[Extension("kangaroo_kernels._C", [])], cmdclass={"build_ext": CMakeBuild})
