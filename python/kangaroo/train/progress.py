"""What a training run tells its caller, while it runs and at its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kangaroo.train.evaluate import Agreement
from kangaroo.train.simulate import Replay


@dataclass(frozen=True)
class Evaluation:
    """How good a drafter the adapter is, on held-out data.

    Attributes:
        held_out: teacher-forced scores at every distance.
        table: decoding replayed under every stopping rule tried.
        best: the row with the highest predicted speed-up: the rule it would be deployed with.
    """

    held_out: Agreement
    table: tuple[Replay, ...]
    best: Replay


@dataclass(frozen=True)
class TrainProgress:
    """One optimiser step.

    Attributes:
        step: steps done, 1..num_steps.
        loss: as `LossConfig` weighs it, per trained slot.
        tokens_per_s: tokens of all windows over the step's wall time.
        held_out, best: see `Evaluation`, on the steps that were evaluated.
    """

    step: int
    num_steps: int
    loss: float
    lr: float
    tokens_per_s: float
    held_out: Agreement | None = None
    best: Replay | None = None

    def record(self) -> dict[str, Any]:
        """What there is to say, for a line of JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class TrainReport:
    """How the run ended.

    Attributes:
        out: the folder written to.
        completed: False: interrupted; `resume` continues from the checkpoint.
        num_steps: optimiser steps done since the very beginning.
        seconds: wall time of this call's steps.
        tokens_per_s: mean over this call's steps.
        kept_step: steps behind which the saved adapter was taken; None if interrupted.
        held_out, table, best: see `Evaluation`, of the saved adapter; `best` is saved with it.
    """

    out: Path
    completed: bool
    num_steps: int
    seconds: float
    tokens_per_s: float
    kept_step: int | None = None
    held_out: Agreement | None = None
    table: tuple[Replay, ...] = ()
    best: Replay | None = None
