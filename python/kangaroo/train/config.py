"""Every knob of a training run, once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from kangaroo.config import ADAPTER_KINDS, AdapterKind

TargetDtype = Literal["auto", "bfloat16", "float32"]
Decay = Literal["linear", "cosine"]


@dataclass(frozen=True)
class EvalConfig:
    """How the adapter is judged on held-out data.

    Attributes:
        every: steps between teacher-forced evaluations during training; 0: only at the end.
        num_windows: held-out windows (of `seq_len` tokens) scored under teacher forcing.
        num_prompts, prompt_len, new_tokens: held-out prompts the target continues greedily, their
            length and that of the continuations; decoding is replayed on these.
        batch_size: windows or prompts per forward pass.
    """

    every: int = 100
    num_windows: int = 32
    num_prompts: int = 40
    prompt_len: int = 64
    new_tokens: int = 128
    batch_size: int = 8

    def __post_init__(self) -> None:
        at_least(self, "every", 0)
        for name in ("num_windows", "num_prompts", "new_tokens", "batch_size"):
            at_least(self, name, 1)
        at_least(self, "prompt_len", 2)


@dataclass(frozen=True)
class TrainConfig:
    """One training run; the same config, data and machine give the same adapter, bit for bit.

    Attributes:
        model: the frozen target, a Hugging Face folder.
        data: a .jsonl or .txt file (see `train.data`).
        out: folder of the adapter, its metrics and, until the run is complete, its checkpoint.
        kind, exit_layer: see `AdapterConfig`.
        max_depth: drafts per round at most; training draws delta, the distance of a query to the
            newest verified slot, from 1..max_depth.
        num_steps: optimiser steps.
        batch_size, seq_len: windows per forward pass and tokens per window.
        accumulation: forward passes per optimiser step; the gradient is that of the mean over all
            their tokens.
        lr, min_lr_ratio, warmup_steps, decay: peak rate; final rate as a fraction of it; steps of
            linear warm-up; shape of the way down.
        weight_decay: on matrices, not on norms. betas: AdamW's.
        clip_norm: largest l2 norm of the gradient.
        seed: of weights, data order and delta.
        dtype: of the target; "auto": bfloat16 where the device multiplies it fast, else float32.
            The adapter trains in float32.
        device: "auto", or a torch device.
        held_out_fraction: of the documents (of the tokens, if there is only one document).
        checkpoint_every: steps between checkpoints; 0: only when interrupted.
        resume: continue the run whose checkpoint is in `out`, if there is one.
    """

    model: Path
    data: Path
    out: Path
    kind: AdapterKind = "deep_prefix"
    exit_layer: int = 2
    max_depth: int = 6
    num_steps: int = 1000
    batch_size: int = 16
    seq_len: int = 256
    accumulation: int = 1
    lr: float = 2e-3
    min_lr_ratio: float = 0.0
    warmup_steps: int = 50
    decay: Decay = "linear"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    seed: int = 0
    dtype: TargetDtype = "auto"
    device: str = "auto"
    held_out_fraction: float = 0.04
    checkpoint_every: int = 200
    resume: bool = False
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: names the field, what was expected and what was given.
        """
        one_of(self, "kind", ADAPTER_KINDS)
        one_of(self, "dtype", ("auto", "bfloat16", "float32"))
        one_of(self, "decay", ("linear", "cosine"))
        for name in ("exit_layer", "max_depth", "num_steps", "batch_size", "accumulation"):
            at_least(self, name, 1)
        at_least(self, "seq_len", 2)
        for name in ("warmup_steps", "weight_decay", "seed", "checkpoint_every"):
            at_least(self, name, 0)
        for name in ("lr", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if not 0 <= self.min_lr_ratio <= 1:
            raise ValueError(f"min_lr_ratio: expected 0 to 1, got {self.min_lr_ratio}")
        if not 0 < (fraction := self.held_out_fraction) < 1:
            raise ValueError(f"held_out_fraction: expected between 0 and 1, got {fraction}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected two numbers in [0, 1), got {self.betas}")
        if self.max_depth >= self.eval.new_tokens:
            raise ValueError(
                f"max_depth: expected less than eval.new_tokens = {self.eval.new_tokens}, "
                f"got {self.max_depth}"
            )

    def trajectory(self) -> dict[str, str]:
        """The fields that decide every bit of the adapter's path: a resumed run must share them."""
        free = {"out", "checkpoint_every", "resume", "eval"}
        return {f.name: str(getattr(self, f.name)) for f in fields(self) if f.name not in free}


def lr_at(config: TrainConfig, step: int) -> float:
    """Learning rate of step 0..num_steps-1: linear warm-up times decay to lr * min_lr_ratio."""
    done = step / config.num_steps
    falling = 1.0 - done if config.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    floor = config.min_lr_ratio
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    return config.lr * warmup * (floor + (1.0 - floor) * falling)


def at_least(config: object, name: str, least: float) -> None:
    """Raises ValueError unless field `name` is at least `least`."""
    if not getattr(config, name) >= least:
        raise ValueError(f"{name}: expected at least {least}, got {getattr(config, name)}")


def one_of(config: object, name: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless field `name` is one of `choices`."""
    if getattr(config, name) not in choices:
        raise ValueError(f"{name}: expected one of {choices}, got {getattr(config, name)!r}")
