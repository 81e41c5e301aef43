"""A training run on disk: whole or not at all, and refused if it is another run's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from kangaroo.models.files import Kinds, check_fields, read_json
from kangaroo.train.simulate import Replay
from kangaroo.train.whole import (
    check_whole,
    remove_folder,
    replace_file,
    sweep,
    write_json,
    write_tensors,
    written_whole,
)

METRICS = "metrics.jsonl"
STATE, ADAPTER, OPTIMIZER, BEST = "state.json", "adapter", "optimizer", "best"
STATE_KINDS: Kinds = {"step": int, "trajectory": dict, "groups": list, "best": dict}


@dataclass(frozen=True)
class Best:
    """The best adapter so far.

    Attributes:
        step: steps done when it was judged; replay: its deployed stopping rule and what it gives.
        adapter: its tensors, on the CPU.
    """

    step: int
    replay: Replay
    adapter: dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run's next step depends on: data order and delta follow from seed and step, and
    nothing else is drawn.

    Attributes:
        trajectory: `TrainConfig.trajectory` of the run.
        step: steps done.
        adapter, optimizer: their state dicts.
    """

    trajectory: dict[str, str]
    step: int
    adapter: dict[str, Tensor]
    optimizer: dict[str, Any]
    best: Best | None = None


def run_folder(out: Path) -> Path:
    """Where a run keeps its checkpoint and metrics until its adapter is in `out`."""
    return out.with_name(out.name + ".run")


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write folder/step-N; the ones before it are removed once it is whole.

    A crash, kill or full disk at any moment leaves the old one, the new one, or both.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    best, new = checkpoint.best, folder / f"step-{checkpoint.step:08d}"
    state = {
        "step": checkpoint.step,
        "trajectory": checkpoint.trajectory,
        "groups": checkpoint.optimizer["param_groups"],
        "best": {} if best is None else {"step": best.step, "replay": asdict(best.replay)},
    }
    with written_whole(new) as workshop:
        write_tensors(_tensors(workshop, ADAPTER), checkpoint.adapter)
        moments = {
            f"{number}.{name}": value
            for number, values in checkpoint.optimizer["state"].items()
            for name, value in values.items()
        }
        write_tensors(_tensors(workshop, OPTIMIZER), moments)
        if best is not None:
            write_tensors(_tensors(workshop, BEST), best.adapter)
        write_json(workshop / STATE, state)
    for old in _checkpoints(folder):
        if old != new:
            remove_folder(old)


def load_checkpoint(folder: Path, trajectory: Mapping[str, str]) -> Checkpoint | None:
    """The folder's newest checkpoint, on the CPU; None: there is none.

    Raises:
        ValueError: it is damaged, or belongs to a run with another `trajectory`.
    """
    found = _checkpoints(folder)
    if not found:
        return None
    path = found[-1]
    check_whole(path, hashes=True)
    state = read_json(path / STATE)
    check_fields(f"{path / STATE}", state, STATE_KINDS)
    for name, value in trajectory.items():
        started = state["trajectory"].get(name)
        if started != value:
            raise ValueError(f"{path}: {name}: the run was started with {started}, got {value}")
    moments: dict[int, dict[str, Tensor]] = {}
    for key, moment in load_file(_tensors(path, OPTIMIZER)).items():
        number, _, kind = key.partition(".")
        moments.setdefault(int(number), {})[kind] = moment
    groups = [group | {"betas": tuple(group["betas"])} for group in state["groups"]]
    best = None
    if state["best"]:
        replay = Replay(**state["best"]["replay"])
        best = Best(state["best"]["step"], replay, load_file(_tensors(path, BEST)))
    return Checkpoint(
        trajectory=state["trajectory"],
        step=state["step"],
        adapter=load_file(_tensors(path, ADAPTER)),
        optimizer={"state": moments, "param_groups": groups},
        best=best,
    )


def _checkpoints(folder: Path) -> list[Path]:
    """From the oldest to the newest."""
    return sorted(folder.glob("step-*"))


def _tensors(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


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
        replace_file(file, "".join(kept).encode())
