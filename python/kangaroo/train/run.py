"""Everything a training run holds, made and checked before its first step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from kangaroo.config import AdapterConfig, EagleConfig, MedusaConfig, ModelConfig
from kangaroo.engine.loading import load_tokenizer
from kangaroo.models.adapter import Adapter
from kangaroo.models.eagle import Eagle
from kangaroo.models.families import model_config
from kangaroo.models.fingerprint import fingerprint, weights_sha256
from kangaroo.models.llama import rope_table
from kangaroo.models.medusa import Medusa
from kangaroo.models.weights import check_target, open_checkpoint
from kangaroo.train.config import OptimConfig, TrainConfig
from kangaroo.train.documents import Document, bos_of
from kangaroo.train.evaluate import Judge, greedy_prompts
from kangaroo.train.features import open_features, rounded_to
from kangaroo.train.heads import EagleStudent, MedusaStudent
from kangaroo.train.parallel import ALONE, Team, own_device, shard_layers
from kangaroo.train.prepare import training_documents
from kangaroo.train.student import AdapterStudent, Student
from kangaroo.train.target import FrozenTarget, States, pick_device, pick_dtype
from kangaroo.train.windows import Windows, WindowSet


class StatesOf(Protocol):
    """Who knows the states of windows, as `FrozenTarget.states` makes them."""

    def states(self, windows: Windows) -> States: ...


@dataclass(frozen=True)
class Run:
    """A run in progress.

    Attributes:
        windows: what is trained on; held_windows and prompts [N, P] are not.
        rope: [2, P, D / 2] float32.
        contents: what decides every bit of the adapter and may change behind a path, by name.
        team: the processes that train together.
        features: the states of `windows`, made before; None: the target makes them.
    """

    config: TrainConfig
    target_config: ModelConfig
    target: FrozenTarget
    student: Student
    optimizer: torch.optim.AdamW
    rope: Tensor
    windows: WindowSet
    held_windows: Windows
    prompts: Tensor
    contents: dict[str, str]
    team: Team = ALONE
    features: StatesOf | None = None

    def states(self, windows: Windows) -> States:
        """The target's, of windows that are trained on."""
        if self.features is None:
            return self.target.states(windows.ids, windows.positions)
        return self.features.states(windows)

    @cached_property
    def continued(self) -> list[Tensor]:
        """The target's greedy continuations of `prompts`, in batches: the same at all times."""
        return self.judge.continued(self.prompts, self.config.eval.new_tokens)

    @property
    def judge(self) -> Judge:
        return Judge(self.target, self.student, self.rope, self.config.eval.batch_size)


def new_student(config: TrainConfig, target: ModelConfig) -> Student:
    """What `config.adapter` asks for."""
    own = config.adapter
    if own.kind == "medusa":
        return MedusaStudent(Medusa(MedusaConfig.for_target(target, own.max_depth)))
    if own.kind == "eagle":
        return EagleStudent(Eagle(EagleConfig.for_target(target)))
    return AdapterStudent(Adapter(AdapterConfig.for_target(target, own.kind, own.exit_layer)))


def prepare(
    config: TrainConfig,
    team: Team = ALONE,
    make: Callable[[TrainConfig, ModelConfig], Student] = new_student,
) -> Run:
    """Read data and target, make a fresh student and its optimiser.

    Raises:
        ValueError: `config`, data and target do not fit together, or the engine could not read the
            target.
        UnsupportedError: the target's family is not supported.
    """
    target_config = model_config(config.model)
    student = make(config, target_config)
    check_lengths(config, target_config)
    check_team(config, team)
    device = own_device(pick_device(config.device))
    student.module.to(device)
    target = load_target(config, team, device)
    tokenizer = load_tokenizer(config.model)
    fraction = config.windows.held_out_fraction
    train, held = training_documents(config.data, config.model, tokenizer, fraction)
    bos = bos_of(tokenizer)
    ends = {*target.eos_ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])}
    shape, moving = config.windows, config.windows.moving
    held_windows = WindowSet(held, shape.seq_len, bos, ends)
    windows = WindowSet(train, shape.seq_len, bos, ends, seed=config.seed, moving=moving)
    scale = start(student, target, config, windows.sample(0, shape.batch_size), team)
    prompt_source = WindowSet(held, max(shape.seq_len, config.eval.prompt_len), bos, ends)
    return Run(
        config=config,
        target_config=target_config,
        target=target,
        student=student,
        optimizer=new_optimizer(student, config.optim, scale),
        rope=rope_table(target_config, device),
        windows=windows,
        held_windows=held_windows.evenly(config.eval.num_windows),
        prompts=greedy_prompts(
            prompt_source.evenly(), config.eval.num_prompts, config.eval.prompt_len, bos
        ),
        contents=contents_of(config, target, train, held, (bos, target.eos_ids, sorted(ends))),
        team=team,
    )


def start(
    student: Student, target: FrozenTarget, config: TrainConfig, first: Windows, team: Team
) -> float:
    """Give a fresh student its weights, by what the target says of the `first` windows; returns
    its :func:`exit_scale`.
    """
    scale = exit_scale(target.states(first.ids, first.positions), first.mask)
    team.share([scale])
    student.start(target, config.seed)
    with torch.no_grad():
        for matrix in student.scaled:
            matrix.mul_(scale)
    return scale.item()


def contents_of(
    config: TrainConfig,
    target: FrozenTarget,
    train: list[Document],
    held: list[Document],
    marks: tuple[object, ...],
) -> dict[str, str]:
    """See `Run`; `marks` are the tokens that begin and end documents."""
    rounded = rounded_to(target, config.features)
    return {
        "model: config": fingerprint(config.model, exit_layer=1)["config"],
        "model: weights": weights_sha256(config.model),
        "model: bos and eos tokens": str(marks),
        "data: training documents": digest(train),
        "data: held-out documents": digest(held),
        "features: states rounded to": "nothing" if rounded is None else str(rounded),
    }


def digest(documents: Iterable[Document]) -> str:
    """sha256 of tokens and masks, in hexadecimal."""
    found = hashlib.sha256()
    for document in documents:
        answer = document.answer
        found.update(f"{len(document.ids)} {answer is None}\n".encode())
        found.update(document.ids.numpy().tobytes())
        found.update(b"" if answer is None else answer.numpy().tobytes())
    return found.hexdigest()


def with_features(run: Run) -> Run:
    """The run with its windows' states in `features.folder`, if it names one.

    Raises: as `train.features.open_features`.
    """
    if run.config.features.folder is None:
        return run
    kept = open_features(run.config, run.target, run.windows.evenly(), run.team)
    return replace(run, features=kept)


def load_target(config: TrainConfig, team: Team, device: torch.device) -> FrozenTarget:
    """The frozen target, whole or this process's share of it.

    Raises:
        ValueError: the engine could not read it, though transformers might.
    """
    check_target(open_checkpoint(config.model), model_config(config.model))
    dtype, exit_layer = pick_dtype(config.dtype, device), config.adapter.exit_layer
    if not config.shard_target:
        return FrozenTarget.load(config.model, exit_layer, dtype, device)
    target = FrozenTarget.load(config.model, exit_layer, dtype, torch.device("cpu"))
    shard_layers(target.model.model.layers, team, device)
    target.model.to(device)
    return target


def exit_scale(states: States, trained: Tensor) -> Tensor:
    """RMS [] of the target's exit states: the median over the slots that are `trained` [B, T], for
    a few are huge in large models.

    The adapter adds W_o(...) to such a state, and targets differ by orders of magnitude here. So
    W_o (`Student.scaled`) starts, and is stepped, in units of this scale: the adapter learns as
    fast on any of them.
    """
    rms = states.exit.square().mean(-1).sqrt()
    return rms[trained.to(rms.device)].median()


def new_optimizer(student: Student, config: OptimConfig, scale: float) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices alone. A step of the scaled ones is `scale` times a step of
    the others: every group has its `lr_scale`.
    """
    scaled, found = student.scaled, list(student.module.parameters())
    matrices = [p for p in found if p.ndim == 2 and not any(p is own for own in scaled)]
    norms = [p for p in found if p.ndim == 1]
    decay = config.weight_decay
    groups = [
        {"params": matrices, "weight_decay": decay, "lr_scale": 1.0},
        {"params": scaled, "weight_decay": decay / scale, "lr_scale": scale},
        {"params": norms, "weight_decay": 0.0, "lr_scale": 1.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def check_lengths(config: TrainConfig, target: ModelConfig) -> None:
    """Refuse sequences longer than the target's context, or than its sliding window.

    Raises:
        ValueError: names the field.
    """
    longest = target.context_len
    replayed = config.eval.prompt_len + config.eval.new_tokens
    for name, length in {
        "windows.seq_len": config.windows.seq_len,
        "eval.prompt_len + eval.new_tokens": replayed,
    }.items():
        if length > longest:
            raise ValueError(f"{name}: expected at most {longest}, the target's, got {length}")


def check_team(config: TrainConfig, team: Team) -> None:
    """Refuse what this number of processes cannot share out.

    Raises:
        ValueError: names the field.
    """
    if config.windows.accumulation % team.size:
        raise ValueError(
            f"windows.accumulation: expected a multiple of {team.size}, the number of processes, "
            f"got {config.windows.accumulation}"
        )
    if config.shard_target and team.size == 1:
        raise ValueError("shard_target: expected several processes, as torchrun starts them, got 1")
