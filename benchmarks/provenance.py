"""What every figure carries: that the tests pass, and which commit and machine it came from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from kangaroo_kernels import native

ROOT = Path(__file__).parent.parent


def run_gate(name: str, backends: list[str], report: Path | None, folder: str = "kernels") -> str:
    """How we know that the tests of these implementations pass; SystemExit where they do not.

    Args:
        name: of the tests, in `tests/folder`: an op's, or others that know no backends.
        report: of JUnit; None: the tests are run.
    """
    test = f"tests/{folder}/test_{name}.py"
    if report is None:
        command = [sys.executable, "-m", "pytest", "-q", "-x", test]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            sys.exit(f"{name}: its tests fail, so its speed means nothing")
        return test
    if not report.exists():
        sys.exit(f"{report}: no such file; it is what pytest --junitxml={report} writes")
    sources = [f for f in (ROOT / "kangaroo_kernels").rglob("*") if f.suffix in (".py", ".so")]
    if report.stat().st_mtime < max(f.stat().st_mtime for f in sources):
        sys.exit(f"{report}: older than the sources; run the tests again")
    module = test.removesuffix(".py").replace("/", ".")
    every = ElementTree.parse(report).iter("testcase")
    cases = [c for c in every if f"{c.get('classname')}.".startswith(f"{module}.")]
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    passed = [c.get("name", "") for c in cases if len(c) == 0]
    if failed:
        sys.exit(f"{report}: {len(failed)} of {len(cases)} tests of {name} fail")
    if missing := [b for b in backends if not any(f"{b}-" in name for name in passed)]:
        sys.exit(f"{report}: no test of {name} by {', '.join(missing)} has passed")
    if not passed:
        sys.exit(f"{report}: no test of {name} has passed")
    return report.name


def git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def append(record: dict[str, Any], out: Path) -> None:
    """One JSON line more in `out`, which is made where it is not there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def machine(device: torch.device) -> dict[str, Any]:
    """Where and with what a figure was taken; KANGAROO_COMMIT says which commit a copy without
    history is of.
    """
    told = os.environ.get("KANGAROO_COMMIT")
    name, driver = platform.processor(), None
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    elif (info := Path("/proc/cpuinfo")).exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return {
        "commit": told or git("rev-parse", "--verify", "--quiet", "HEAD") or None,
        "dirty": None if told else bool(git("status", "--porcelain")),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": name,
        "driver": driver,
        "isa": (native.build_info() or {}).get("isa"),
        "torch": torch.__version__,
        "triton": installed("triton"),
        "threads": torch.get_num_threads(),
        "load_1min": round(os.getloadavg()[0], 2),
    }
