"""What a run would do, told before its first step; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from kangaroo.train.config import TrainConfig
from kangaroo.train.features import stored_dtype
from kangaroo.train.run import prepare
from kangaroo.train.trainer import accumulate_gradient, checked_folders


@dataclass(frozen=True)
class Plan:
    """Figures of a run.

    Attributes:
        num_parameters: of the adapter, float32.
        num_windows: of an epoch; num_held_out: scored at each evaluation.
        num_epochs: that all steps make.
        feature_bytes: of the target's states of all windows, if they are kept (`features.folder`).
        seconds_per_step: one step's gradient, timed here with the target in process.
        seconds: of all steps at that pace; evaluation and saving come on top.
    """

    num_parameters: int
    num_windows: int
    num_held_out: int
    num_steps: int
    num_epochs: float
    feature_bytes: int
    seconds_per_step: float
    seconds: float


def plan(config: TrainConfig) -> Plan:
    """Read data and target, check all of `config`, and time one step.

    Raises: as `train.trainer.train_adapter`.
    """
    saved, run = checked_folders(config), prepare(config)
    if saved is not None:
        saved.check_contents(run.contents)
    started = perf_counter()
    accumulate_gradient(run, step=0)
    seconds = perf_counter() - started
    width = stored_dtype(run.target, config.features.dtype).itemsize * run.target.norm.numel()
    num_steps = config.optim.num_steps
    return Plan(
        num_parameters=sum(p.numel() for p in run.student.module.parameters()),
        num_windows=len(run.windows),
        num_held_out=len(run.held_windows),
        num_steps=num_steps,
        num_epochs=num_steps * config.num_windows / len(run.windows),
        feature_bytes=2 * width * config.windows.seq_len * len(run.windows),
        seconds_per_step=seconds,
        seconds=num_steps * seconds,
    )
