"""A training run on disk: whole or not at all, and refused if it is another run's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from kangaroo.models.files import Kinds, check_fields, read_json
from kangaroo.train.config import run_folder
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
STATE_KINDS: Kinds = {
    "step": int,
    "trajectory": dict,
    "contents": dict,
    "groups": list,
    "best": dict,
}
OWN = re.compile(r"(metrics\.jsonl|step-\d{8,})|\.(metrics\.jsonl|step-\d{8,})\.(new|old)")


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
        trajectory: `TrainConfig.trajectory` of the run; contents: `Run.contents`.
        step: steps done.
        adapter, optimizer: their state dicts.
    """

    trajectory: dict[str, str]
    contents: dict[str, str]
    step: int
    adapter: dict[str, Tensor]
    optimizer: dict[str, Any]
    best: Best | None = None

    def check_contents(self, contents: Mapping[str, str]) -> None:
        """Refuse to go on with others.

        Raises:
            ValueError: names the first that differs.
        """
        for name, value in contents.items():
            if (started := self.contents.get(name)) != value:
                raise ValueError(f"resume: {name}: the run was started with {started}, got {value}")


def check_own(out: Path) -> None:
    """Nothing but a training run's own files is in the run folder of `out`, if that is there.

    Raises:
        ValueError: names what else is there.
    """
    folder = run_folder(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out: {folder} is a file; expected another out, or to find it gone")
    strangers = [path for path in _entries(folder) if not OWN.fullmatch(path.name)]
    if strangers:
        raise ValueError(
            f"out: {strangers[0]} is no part of a training run; expected another out, or to find "
            "it gone"
        )


def remove_own(out: Path) -> None:
    """Remove a run's own files from the run folder of `out`, and the folder if it is empty then.

    The checkpoint goes first: without metrics it could not be finished again.
    """
    folder = run_folder(out)
    for old in _checkpoints(folder):
        remove_folder(old)
    sweep(folder, OWN)
    (folder / METRICS).unlink(missing_ok=True)
    if not _entries(folder):
        folder.rmdir()


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write folder/step-N; the ones before it are removed once it is whole.

    A crash, kill or full disk at any moment leaves the old one, the new one, or both.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder, OWN)
    best, new = checkpoint.best, folder / f"step-{checkpoint.step:08d}"
    state = {
        "step": checkpoint.step,
        "trajectory": checkpoint.trajectory,
        "contents": checkpoint.contents,
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
        contents=state["contents"],
        step=state["step"],
        adapter=load_file(_tensors(path, ADAPTER)),
        optimizer={"state": moments, "param_groups": groups},
        best=best,
    )


def _checkpoints(folder: Path) -> list[Path]:
    """From the oldest to the newest."""
    return [path for path in _entries(folder) if path.match("step-*") and OWN.fullmatch(path.name)]


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


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
