"""A training run on disk: whole or not at all, and refused if it is another run's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

CHECKPOINT, METRICS = "checkpoint.pt", "metrics.jsonl"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run's next step depends on; data order and delta follow from seed and step.

    Attributes:
        trajectory: `TrainConfig.trajectory` of the run.
        step: steps done.
        adapter, optimizer: their state dicts.
    """

    trajectory: dict[str, str]
    step: int
    adapter: dict[str, Any]
    optimizer: dict[str, Any]


def run_folder(out: Path) -> Path:
    """Where a run keeps its checkpoint and metrics until its adapter is in `out`."""
    return out.with_name(out.name + ".run")


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint; a crash at any moment leaves the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{CHECKPOINT}.new"
    with new.open("wb") as file:
        torch.save(vars(checkpoint), file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / CHECKPOINT)
    if os.name == "posix":  # the rename itself must reach the disk too
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def load_checkpoint(folder: Path, trajectory: Mapping[str, str]) -> Checkpoint | None:
    """The folder's checkpoint, on the CPU; None: there is none.

    Raises:
        ValueError: it is corrupt, or belongs to a run with another `trajectory`.
    """
    file = folder / CHECKPOINT
    if not file.exists():
        return None
    try:
        checkpoint = Checkpoint(**torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a damaged pickle makes torch raise
        raise ValueError(f"{file}: truncated or corrupt: {error}") from error
    for name, value in trajectory.items():
        started = checkpoint.trajectory.get(name)
        if started != value:
            raise ValueError(f"{file}: {name}: the run was started with {started}, got {value}")
    return checkpoint


def append_metrics(folder: Path, record: Mapping[str, Any]) -> None:
    """One more JSON line."""
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def trim_metrics(folder: Path, step: int) -> None:
    """Forget the lines of steps behind `step`: a resumed run writes them again."""
    file = folder / METRICS
    if file.exists():
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        file.write_text("".join(kept), encoding="utf-8")
