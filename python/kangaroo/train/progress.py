"""What a training run tells its caller, while it runs and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kangaroo.train.evaluate import Agreement
from kangaroo.train.simulate import Replay


@dataclass(frozen=True)
class TrainProgress:
    """One optimiser step.

    Attributes:
        step: steps done, 1..num_steps.
        loss: soft cross-entropy in nats per trained slot.
        tokens_per_s: tokens of all windows over the step's wall time.
        held_out: teacher-forced scores, on the steps that were evaluated.
    """

    step: int
    num_steps: int
    loss: float
    lr: float
    tokens_per_s: float
    held_out: Agreement | None = None


@dataclass(frozen=True)
class TrainReport:
    """How the run ended.

    Attributes:
        out: the folder written to.
        completed: False: interrupted; a checkpoint is in `out`, and `resume` continues from it.
        num_steps: optimiser steps done since the very beginning.
        seconds: wall time of this call's steps.
        tokens_per_s: mean over this call's steps.
        held_out: teacher-forced scores; None if interrupted.
        table: decoding replayed under every stopping rule tried; best: the one saved with the
            adapter.
    """

    out: Path
    completed: bool
    num_steps: int
    seconds: float
    tokens_per_s: float
    held_out: Agreement | None = None
    table: tuple[Replay, ...] = ()
    best: Replay | None = None
