"""Every knob of a training run, once; sections are those of the YAML file (`config_file`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from kangaroo.config import ADAPTER_KINDS, HEAD_KINDS, MAX_TREE_NODES, DrafterKind

TargetDtype = Literal["auto", "bfloat16", "float32"]
StoredDtype = Literal["auto", "float32", "bfloat16", "float16"]
Decay = Literal["linear", "cosine"]
Keep = Literal["best", "last"]

# What a resumed run may change: where things are, how often it is saved, who is told.
FREE = ("out", "resume", "checkpoint_every", "shard_target", "features.folder", "tracking")


@dataclass(frozen=True)
class NewAdapter:
    """What is trained.

    Attributes:
        kind: of `AdapterConfig`; or "medusa" or "eagle", other drafters.
        exit_layer: see `AdapterConfig`; the other drafters have none.
        max_depth: drafts per round at most; training draws delta, the distance of a query to the
            newest verified slot, from 1..max_depth. Medusa has as many heads.
    """

    kind: DrafterKind = "deep_prefix"
    exit_layer: int = 2
    max_depth: int = 6

    def __post_init__(self) -> None:
        one_of(self, "kind", ADAPTER_KINDS + HEAD_KINDS)
        if self.kind in HEAD_KINDS and self.exit_layer != NewAdapter.exit_layer:
            raise ValueError(f"exit_layer: has no effect on kind {self.kind!r}; leave it out")
        for name in ("exit_layer", "max_depth"):
            at_least(self, name, 1)
        if self.max_depth > (most := MAX_TREE_NODES - 1):
            raise ValueError(f"max_depth: expected at most {most}, got {self.max_depth}")


@dataclass(frozen=True)
class WindowsConfig:
    """What a step trains on.

    Attributes:
        batch_size, seq_len: windows per forward pass and tokens per window.
        accumulation: forward passes per optimiser step, of all processes together; the gradient is
            that of the mean over all their tokens.
        moving: texts are cut into windows at a new offset every epoch; false: at the same places.
        held_out_fraction: of the documents (of the tokens, if there is only one document).
    """

    batch_size: int = 16
    seq_len: int = 256
    accumulation: int = 1
    moving: bool = True
    held_out_fraction: float = 0.04

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation"):
            at_least(self, name, 1)
        at_least(self, "seq_len", 2)
        if not 0 < (fraction := self.held_out_fraction) < 1:
            raise ValueError(f"held_out_fraction: expected between 0 and 1, got {fraction}")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule.

    Attributes:
        num_steps: optimiser steps.
        lr, min_lr_ratio, warmup_steps, decay: peak rate; final rate as a fraction of it; steps of
            linear warm-up; shape of the way down.
        weight_decay: on matrices, not on norms. betas: AdamW's.
        clip_norm: largest l2 norm of the gradient.
    """

    num_steps: int = 1000
    lr: float = 2e-3
    min_lr_ratio: float = 0.0
    warmup_steps: int = 50
    decay: Decay = "linear"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        one_of(self, "decay", ("linear", "cosine"))
        at_least(self, "num_steps", 1)
        for name in ("warmup_steps", "weight_decay"):
            at_least(self, name, 0)
        for name in ("lr", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if not 0 <= self.min_lr_ratio <= 1:
            raise ValueError(f"min_lr_ratio: expected 0 to 1, got {self.min_lr_ratio}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected two numbers in [0, 1), got {self.betas}")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses between the target's p and the draft's q; what is not named has none.

    Attributes:
        soft: cross-entropy -sum p log q (paper, section 3.2).
        kl: KL(p || q), `soft` less the entropy of p: the same gradient, and 0 where q is p.
        hard: -log q of the target's best token.
        tv: total variation 1 - sum min(p, q): what speculative sampling rejects.
    """

    soft: float = 0.0
    kl: float = 0.0
    hard: float = 0.0
    tv: float = 0.0

    def __post_init__(self) -> None:
        weights = [getattr(self, f.name) for f in fields(self)]
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise ValueError(f"soft, kl, hard, tv: expected weights, one above 0, got {weights}")


@dataclass(frozen=True)
class EvalConfig:
    """How the adapter is judged on held-out data.

    Attributes:
        every: steps between evaluations during training; 0: only at the end.
        keep: which adapter is saved: of all evaluated, the one with the highest predicted speed-up
            under the stopping rule it would be deployed with, or the last.
        num_windows: held-out windows (of `seq_len` tokens) scored under teacher forcing.
        num_prompts, prompt_len, new_tokens: held-out prompts the target continues greedily, their
            length and that of the continuations; decoding is replayed on these.
        batch_size: windows or prompts per forward pass.
    """

    every: int = 100
    keep: Keep = "best"
    num_windows: int = 32
    num_prompts: int = 40
    prompt_len: int = 64
    new_tokens: int = 128
    batch_size: int = 8

    def __post_init__(self) -> None:
        one_of(self, "keep", ("best", "last"))
        at_least(self, "every", 0)
        for name in ("num_windows", "num_prompts", "new_tokens", "batch_size"):
            at_least(self, name, 1)
        at_least(self, "prompt_len", 2)


@dataclass(frozen=True)
class FeaturesConfig:
    """The target's states of every training window, kept between runs (`train.features`).

    Attributes:
        folder: written by the first run, read by every later one with the same target, data, exit
            layer and windows; null: the target runs in every step. Windows may not be `moving`.
        dtype: they are stored in. "auto": the target's own, which gives the bits of a run without a
            folder; 16 bits of a float32 target's states are half as large and do not.
    """

    folder: Path | None = None
    dtype: StoredDtype = "auto"

    def __post_init__(self) -> None:
        one_of(self, "dtype", ("auto", "float32", "bfloat16", "float16"))


@dataclass(frozen=True)
class TrackingConfig:
    """Who else is told the figures of every step; `metrics.jsonl` always is.

    Attributes:
        tensorboard: a folder of its event files.
        wandb: a project of Weights & Biases.
    """

    tensorboard: Path | None = None
    wandb: str | None = None


@dataclass(frozen=True)
class TrainConfig:
    """One training run; the same config, data and machine give the same adapter, bit for bit.

    Attributes:
        model: the frozen target, a Hugging Face folder.
        data: a .jsonl or .txt file (see `train.documents`), or a folder of `kangaroo data prepare`.
        out: folder of the adapter, its metrics and report; "<out>.run" until the run is complete.
        seed: of weights, data order and delta.
        dtype: of the target; "auto": bfloat16 where the device multiplies it fast, else float32.
            The adapter trains in float32.
        device: "auto", or a torch device.
        checkpoint_every: steps between checkpoints; 0: only when interrupted, and at the end.
        resume: continue the run whose checkpoint is in "<out>.run", if there is one.
        shard_target: cut the target's layers over the processes (`train.parallel`).
    """

    model: Path
    data: Path
    out: Path
    seed: int = 0
    dtype: TargetDtype = "auto"
    device: str = "auto"
    checkpoint_every: int = 200
    resume: bool = False
    shard_target: bool = False
    adapter: NewAdapter = field(default_factory=NewAdapter)
    windows: WindowsConfig = field(default_factory=WindowsConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=lambda: LossConfig(soft=1.0))
    eval: EvalConfig = field(default_factory=EvalConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; so does every section.

        Raises:
            ValueError: names the field, what was expected and what was given.
        """
        one_of(self, "dtype", ("auto", "bfloat16", "float32"))
        for name in ("seed", "checkpoint_every"):
            at_least(self, name, 0)
        if self.adapter.max_depth >= self.eval.new_tokens:
            raise ValueError(
                f"adapter.max_depth: expected less than eval.new_tokens = {self.eval.new_tokens}, "
                f"got {self.adapter.max_depth}"
            )
        if self.features.folder is not None and self.windows.moving:
            raise ValueError("windows.moving: expected false with features.folder, got True")
        taken = [path.resolve() for path in (self.out, run_folder(self.out))]
        for name in ("features.folder", "tracking.tensorboard"):
            path = flat(self)[name]
            if path is not None and any(path.resolve().is_relative_to(own) for own in taken):
                raise ValueError(f"{name}: expected a folder outside out and out.run, got {path}")

    @property
    def num_windows(self) -> int:
        """Of an optimiser step."""
        return self.windows.batch_size * self.windows.accumulation

    @property
    def num_tokens(self) -> int:
        """Of an optimiser step."""
        return self.num_windows * self.windows.seq_len

    def trajectory(self) -> dict[str, str]:
        """The fields that decide every bit of the adapter: a resumed run must share them."""
        return {
            name: str(value)
            for name, value in flat(self).items()
            if name not in FREE and name.partition(".")[0] not in FREE
        }


def run_folder(out: Path) -> Path:
    """Where a run keeps its checkpoint and metrics until its adapter is in `out`."""
    return out.parent / f"{out.name}.run"


def flat(config: Any) -> dict[str, Any]:
    """Fields by dotted name: "optim.lr"."""
    values: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        inner: Mapping[str, Any] = flat(value) if is_dataclass(value) else {}
        values |= {f"{f.name}.{name}": v for name, v in inner.items()} or {f.name: value}
    return values


def lr_at(config: OptimConfig, step: int) -> float:
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
