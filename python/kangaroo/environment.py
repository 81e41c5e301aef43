"""What this installation is made of, which kernels it runs, and what is missing costs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from kangaroo.engine.capture import uncaptured
from kangaroo.engine.loading import target_path, torch_device, torch_dtype
from kangaroo.models.families import model_config
from kangaroo_kernels import Target, UnsupportedError, native
from kangaroo_kernels.kernel_set import IMPLS, auto_backend, explain

CAPTURED = "Rounds are CUDA graphs: one launch each."
PACKAGES = ("kangaroo", "torch", "transformers", "triton", "safetensors", "numpy", "typer", "rich")


def describe(model: str, dtype: str | None, device: str) -> dict[str, Any]:
    """For JSON: versions, hardware, extension, the kernels of a target here, and notes.

    Raises:
        ValueError: the target, the dtype or the device is not there.
        UnsupportedError: the target's family is not supported.
    """
    path, place = target_path(model), torch_device(device)
    target = Target(place, torch_dtype(dtype, place, path), model_config(path).head_dim)
    kernels = {op: _kernel(op, target) for op in IMPLS}
    return {
        "versions": versions(),
        "machine": machine(),
        "extension": native.build_info(),
        "target": {
            "model": model,
            "device": str(place),
            "dtype": str(target.dtype).removeprefix("torch."),
            "head_dim": target.head_dim,
        },
        "kernels": kernels,
        "notes": _notes(target, kernels),
    }


def versions() -> dict[str, str | None]:
    """Of Python and of PACKAGES; None: not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """The hardware, and what torch makes of it."""
    gpus = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_name(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "gpus": [
            {"name": gpu.name, "memory_bytes": gpu.total_memory, "sm": f"{gpu.major}.{gpu.minor}"}
            for gpu in gpus
        ],
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _kernel(op: str, target: Target) -> dict[str, Any]:
    """The implementation that "auto" takes, and why each other one that cannot run was refused."""
    refused = {backend.value: reason for backend, reason in explain(op, target).items() if reason}
    try:
        serves = auto_backend(op, target).value
    except UnsupportedError:
        serves = None
    return {"serves": serves, "refused": refused}


def _notes(target: Target, kernels: dict[str, Any]) -> list[str]:
    notes = []
    if native.build_info() is None:
        notes.append(
            "Without the C++ extension the CPU runs the reference kernels: the same tokens, but "
            f"several times slower. To have it, {native.HOW_TO_BUILD}."
        )
    elif target.device.type == "cpu" and kernels["linear"]["serves"] == "reference":
        notes.append(
            f"In {str(target.dtype).removeprefix('torch.')} the CPU runs the reference kernels, "
            "several times slower than the C++ ones, which compute in float32."
        )
    if not torch.cuda.is_available():
        notes.append("torch finds no CUDA device here: everything runs on the CPU.")
    elif target.device.type == "cuda":
        serving = {kernel["serves"] for kernel in kernels.values()} - {None}
        refused = uncaptured(target.device, serving)
        notes.append(f"Rounds are run by the host: {refused}." if refused else CAPTURED)
    if missing := [op for op, kernel in kernels.items() if kernel["serves"] is None]:
        notes.append(
            f"Nothing serves {', '.join(missing)} on {target.device.type} by itself; "
            "--backend reference runs everywhere, slowly."
        )
    return notes
