"""Builds the C++ extension kangaroo_kernels._C with CMake; the package works without it, too.

KANGAROO_BUILD_EXT=0 leaves it out, 1 fails when it cannot be built, auto (the default) warns.
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


class CMakeBuild(build_ext):
    """The target _C of CMakeLists.txt; nothing of an earlier build outlives a new one."""

    def run(self) -> None:
        mode = os.environ.get("KANGAROO_BUILD_EXT", "auto")
        if mode not in MODES:
            raise SystemExit(f"KANGAROO_BUILD_EXT: expected one of {MODES}, got {mode!r}")
        for stale in self.destination.glob("_C.*"):
            stale.unlink()
        if mode == "0":
            return
        for cuda, loss in (
            ("ON", "trying again without CUDA"),
            ("OFF", "no C++ extension: on a CPU the ops run in PyTorch, several times slower"),
        ):
            try:
                return self.build(cuda)
            except (ImportError, OSError, subprocess.CalledProcessError) as error:
                if mode == "1":
                    raise
                failed = isinstance(error, subprocess.CalledProcessError)
                self.warn(f"kangaroo: {'cmake failed, see above' if failed else error}; {loss}")

    @property
    def destination(self) -> Path:
        return (ROOT if self.inplace else Path(self.build_lib)) / "kangaroo_kernels"

    def build(self, cuda: str) -> None:
        import pybind11

        scripts = sysconfig.get_path("scripts")  # on no PATH where an environment is not activated
        environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"}
        folder = Path(self.build_temp).resolve() / "cmake"
        shutil.rmtree(folder, ignore_errors=True)  # it remembers compilers and paths that are gone
        configure = [
            *("cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(folder)),
            *("-DKANGAROO_PYTHON=ON", "-DBUILD_TESTING=OFF", "-DKANGAROO_WERROR=OFF"),
            f"-DKANGAROO_CUDA={cuda}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={folder / 'out'}",
        ]
        build = ["cmake", "--build", str(folder), "--target", "_C"]
        for command in (configure, build):
            subprocess.run(command, check=True, env=environment)
        self.destination.mkdir(parents=True, exist_ok=True)
        for extension in (folder / "out").glob("_C.*"):
            shutil.copy2(extension, self.destination)

    def get_outputs(self) -> list[str]:
        return [str(path) for path in (Path(self.build_lib) / "kangaroo_kernels").glob("_C.*")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


setup(ext_modules=[Extension("kangaroo_kernels._C", [])], cmdclass={"build_ext": CMakeBuild})
