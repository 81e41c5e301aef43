"""One target, one set of windows, its states behind many layers kept once: every row of a table is
trained and judged on these.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoTokenizer

from benchmarks.ablations.states import Kept, LayeredTarget
from benchmarks.ablations.students import Shape, VariantStudent
from kangaroo.config import EagleConfig, MedusaConfig
from kangaroo.engine.loading import target_path
from kangaroo.models.eagle import Eagle
from kangaroo.models.families import model_config
from kangaroo.models.llama import rope_table
from kangaroo.models.medusa import Medusa
from kangaroo.train.config import LossConfig, TrainConfig, at_least
from kangaroo.train.documents import Document
from kangaroo.train.evaluate import greedy_prompts
from kangaroo.train.features import digests
from kangaroo.train.heads import EagleStudent, MedusaStudent
from kangaroo.train.run import Run, exit_scale, new_optimizer
from kangaroo.train.simulate import Replay, Trace, simulate_cr, tune
from kangaroo.train.student import Student
from kangaroo.train.target import FrozenTarget
from kangaroo.train.trainer import CONFIDENCES, Standing, take_step
from kangaroo.train.windows import Windows, WindowSet
from kangaroo.zoo import corpus

KINDS = ("code", "prose")
EXITS, MIDDLE = (1, 2, 4, 8), 10


@dataclass(frozen=True)
class Settings:
    """How much is trained and judged: the same for all rows."""

    num_steps: int = 360
    batch_size: int = 8
    seq_len: int = 256
    lr: float = 3e-3
    max_depth: int = 6
    num_prompts: int = 40
    prompt_len: int = 64
    new_tokens: int = 128

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "num_prompts"):
            at_least(self, name, 1)


@dataclass(frozen=True)
class Row:
    """What is trained: an adapter of some shape, or another kind of head; by a loss."""

    shape: Shape = Shape()
    loss: LossConfig = LossConfig(soft=1.0)
    kind: Literal["adapter", "medusa", "eagle"] = "adapter"


@dataclass(frozen=True)
class Judged:
    """What a student does with one kind of text.

    Attributes:
        table: every stopping rule; best: the fastest as predicted; full_ratio: the compression
            ratio of drafts that only depth ends.
        agreement: teacher-forced, behind the root of a draft.
    """

    table: tuple[Replay, ...]
    best: Replay
    full_ratio: float
    agreement: float


class Bench:
    """Everything that rows share.

    Args:
        store: a file of the states of all training windows, written if it is not there.
    """

    def __init__(self, settings: Settings, store: Path):
        self.settings, self.path = settings, target_path("tiny-py")
        self.config = model_config(self.path)
        self.tokenizer = AutoTokenizer.from_pretrained(self.path)
        self.base = LayeredTarget(
            FrozenTarget.load(self.path, 1, torch.float32, torch.device("cpu")).model, 1, 1
        )
        train, held = corpus.split(corpus.stdlib_files())
        self.layers = (*EXITS, MIDDLE, self.config.num_layers - 1, self.config.num_layers)
        num_windows = settings.num_steps * settings.batch_size
        self.documents = self._some(train, num_windows)
        self.texts = {"code": held, "prose": list(docstrings(held))}
        self.store = self._store(store)

    def documents_of(self, texts: list[str]) -> list[Document]:
        """Tokens of whole texts."""
        eos = self.tokenizer.eos_token_id
        return [Document(torch.tensor([*ids, eos])) for ids in self.tokenizer(texts)["input_ids"]]

    def _some(self, texts: list[str], num_windows: int) -> list[Document]:
        """Files in a random order, enough for the windows of all steps."""
        chosen = random.Random(0).sample(texts, len(texts))
        wanted, got, documents = (num_windows + 2) * self.settings.seq_len, 0, list[Document]()
        while chosen and got < wanted:
            documents += self.documents_of([chosen.pop()])
            got += len(documents[-1].ids)
        if got < wanted:
            raise ValueError(f"num_steps: expected windows of at most {got} tokens, got {wanted}")
        return documents

    def window_set(self, seed: int) -> WindowSet:
        """The training windows, in the order of a seed."""
        own = self.tokenizer
        return WindowSet(
            self.documents,
            self.settings.seq_len,
            own.bos_token_id,
            [own.eos_token_id],
            seed=seed,
            moving=False,
        )

    def _store(self, path: Path) -> Tensor:
        """[len(layers), W, T, C] bfloat16 of all windows, mapped."""
        windows, width = self.window_set(0).evenly(), self.config.hidden_size
        shape = (len(self.layers), len(windows), self.settings.seq_len, width)
        new = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        count = int(torch.tensor(shape).prod())
        part = path.with_suffix(".part") if new else path
        store = torch.from_file(str(part), shared=new, size=count, dtype=torch.bfloat16).view(shape)
        for first in range(0, len(windows) if new else 0, 16):
            some = windows[first : first + 16]
            states, _ = self.base.layered(some.ids, some.positions, self.layers)
            store[:, first : first + 16] = states
        if new:
            part.rename(path)
        return store

    @cached_property
    def rows(self) -> dict[bytes, int]:
        return {digest: row for row, digest in enumerate(digests(self.window_set(0).evenly()))}

    @cached_property
    def prompts(self) -> dict[str, Tensor]:
        """Held-out prompts [N, P] of each kind of text."""
        own, given = self.tokenizer, self.settings
        found = {}
        for kind, texts in self.texts.items():
            source = WindowSet(
                self.documents_of(texts), given.seq_len, own.bos_token_id, [own.eos_token_id]
            )
            found[kind] = greedy_prompts(
                source.evenly(), given.num_prompts, given.prompt_len, own.bos_token_id
            )
        return found

    @cached_property
    def continued(self) -> dict[str, list[Tensor]]:
        """What the target writes behind them."""
        return {
            kind: [self.base.continue_greedily(p, self.settings.new_tokens) for p in rows.split(8)]
            for kind, rows in self.prompts.items()
        }

    def student(self, row: Row) -> Student:
        """What a row trains, before it is started."""
        if row.kind == "medusa":
            return MedusaStudent(
                Medusa(MedusaConfig.for_target(self.config, self.settings.max_depth))
            )
        if row.kind == "eagle":
            return EagleStudent(Eagle(EagleConfig.for_target(self.config)))
        return VariantStudent(row.shape, self.config)

    def run(self, row: Row, seed: int) -> Run:
        """A row in training, not yet begun."""
        shape, given = row.shape, self.settings
        deep = self.config.num_layers if shape.deep_layer is None else shape.deep_layer
        target = LayeredTarget(self.base.model, shape.exit_layer, deep)
        config = self._train_config(row, seed)
        windows, own = self.window_set(seed), self.student(row)
        own.start(target, seed)
        scale = exit_scale(target, windows.sample(0, given.batch_size)).item()
        with torch.no_grad():
            for matrix in own.scaled:
                matrix.mul_(scale)
        places = [self.layers.index(n) for n in (shape.exit_layer, deep, self.config.num_layers)]
        return Run(
            config=config,
            target_config=self.config,
            target=target,
            student=own,
            optimizer=new_optimizer(own, config, scale),
            rope=rope_table(self.config, torch.device("cpu")),
            windows=windows,
            held_windows=self.held["code"],
            prompts=self.prompts["code"],
            features=Kept(target, self.store, self.rows, (places[0], places[1], places[2])),
        )

    @cached_property
    def held(self) -> dict[str, Windows]:
        """Held-out windows of each kind of text."""
        own, given = self.tokenizer, self.settings
        return {
            kind: WindowSet(
                self.documents_of(texts), given.seq_len, own.bos_token_id, [own.eos_token_id]
            ).evenly(12)
            for kind, texts in self.texts.items()
        }

    def _train_config(self, row: Row, seed: int) -> TrainConfig:
        given, nowhere = self.settings, Path()
        config = TrainConfig(nowhere, nowhere, nowhere, seed=seed, dtype="float32", device="cpu")
        adapter = replace(
            config.adapter, exit_layer=row.shape.exit_layer, max_depth=given.max_depth
        )
        windows = replace(
            config.windows, batch_size=given.batch_size, seq_len=given.seq_len, moving=False
        )
        optim = replace(config.optim, num_steps=given.num_steps, lr=given.lr)
        evaluation = replace(config.eval, every=0)
        return replace(
            config, adapter=adapter, windows=windows, optim=optim, loss=row.loss, eval=evaluation
        )

    def judged(self, run: Run) -> dict[str, Judged]:
        """A trained row on both kinds of text."""
        given, cost, found = self.settings, run.student.cost(self.config), {}
        for kind in KINDS:
            trace: Trace = run.judge.trace(
                self.continued[kind], given.prompt_len, given.new_tokens, given.max_depth
            )
            table = tune(trace, cost, CONFIDENCES)
            full, _ = simulate_cr(trace, 0.0, given.max_depth)
            scores = run.judge.teacher_forced(self.held[kind], (1,))
            best = max(table, key=lambda rule: rule.speedup)
            found[kind] = Judged(table, best, full, scores.agreement[0])
        return found


def trained(run: Run) -> float:
    """All steps; the mean loss of the last 50."""
    standing, losses = Standing(), list[float]()
    for _ in range(run.config.optim.num_steps):
        losses.append(take_step(run, standing).loss)
    return sum(losses[-50:]) / len(losses[-50:])


def docstrings(sources: Iterable[str], least: int = 400) -> Iterator[str]:
    """English: the documentation strings of at least so many characters in Python sources."""
    places = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for source in sources:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):  # files that test parsers
            continue
        for node in ast.walk(tree):
            if isinstance(node, places) and len(text := ast.get_docstring(node) or "") >= least:
                yield text
