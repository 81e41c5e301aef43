"""One target and its states behind many layers, kept once: every row of a table is trained on
these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.ablations.rows import EXITS, MIDDLE, Row, Settings
from benchmarks.ablations.states import Kept, LayeredTarget
from benchmarks.ablations.students import Unrolled, VariantStudent
from benchmarks.ablations.texts import Texts
from kangaroo.config import AdapterConfig, EagleConfig, MedusaConfig
from kangaroo.engine.loading import target_path
from kangaroo.models.adapter import Adapter
from kangaroo.models.eagle import Eagle
from kangaroo.models.families import model_config
from kangaroo.models.llama import rope_table
from kangaroo.models.medusa import Medusa
from kangaroo.train.config import TrainConfig
from kangaroo.train.documents import Document
from kangaroo.train.features import digests
from kangaroo.train.heads import EagleStudent, MedusaStudent
from kangaroo.train.run import Run, exit_scale, new_optimizer
from kangaroo.train.student import AdapterStudent, Student
from kangaroo.train.target import FrozenTarget
from kangaroo.train.trainer import Standing, take_step
from kangaroo.train.windows import Windows


@dataclass(frozen=True)
class Source:
    """Training windows and their states.

    Attributes:
        store: [len(layers), W, T, C] bfloat16, mapped; rows: which of W, by the window's digest.
    """

    documents: list[Document]
    store: Tensor
    rows: dict[bytes, int]


class Bench:
    """Everything that rows share.

    Args:
        folder: where states and the target's answers are kept, some gigabytes.
    """

    def __init__(self, settings: Settings, folder: Path):
        self.settings, self.folder, self.path = settings, folder, target_path("tiny-py")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = model_config(self.path)
        self.base = LayeredTarget(
            FrozenTarget.load(self.path, 1, torch.float32, torch.device("cpu")).model, 1, 1
        )
        self.texts = Texts(settings, self.base, self.path, folder)
        self.layers = (*EXITS, MIDDLE, self.config.num_layers - 1, self.config.num_layers)

    @cached_property
    def files(self) -> Source:
        """The training files."""
        return self._source(self.texts.files, f"{self.texts.num_windows}x{self.settings.seq_len}")

    @cached_property
    def answers(self) -> Source:
        """What the target writes behind their beginnings."""
        name = f"answers-{self.texts.num_windows}x{self.settings.seq_len}"
        return self._source(self.texts.answers, name)

    def _source(self, documents: list[Document], name: str) -> Source:
        windows = self.texts.window_set(documents).evenly()
        rows = {digest: row for row, digest in enumerate(digests(windows))}
        return Source(documents, self._store(self.folder / f"{name}.bin", windows), rows)

    def _store(self, path: Path, windows: Windows) -> Tensor:
        """The states of all windows, made if the file is not there."""
        shape = (len(self.layers), *windows.ids.shape, self.config.hidden_size)
        new = not path.exists()
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

    def student(self, row: Row) -> Student:
        """What a row trains, before it is started."""
        if row.kind == "medusa":
            return MedusaStudent(
                Medusa(MedusaConfig.for_target(self.config, self.settings.max_depth))
            )
        if row.kind == "eagle":
            return EagleStudent(Eagle(EagleConfig.for_target(self.config)))
        if row.kind == "adapter":
            return (Unrolled if row.unrolled else VariantStudent)(row.shape, self.config)
        config = AdapterConfig.for_target(self.config, row.kind, row.shape.exit_layer)
        return AdapterStudent(Adapter(config))

    def run(self, row: Row, seed: int) -> Run:
        """A row in training, not yet begun."""
        shape, given = row.shape, self.settings
        deep = self.config.num_layers if shape.deep_layer is None else shape.deep_layer
        target = LayeredTarget(self.base.model, shape.exit_layer, deep)
        source = self.answers if row.answers else self.files
        config = self._train_config(row, seed)
        windows, own = self.texts.window_set(source.documents, seed), self.student(row)
        own.start(target, seed)
        first = windows.sample(0, given.batch_size)
        scale = exit_scale(target.states(first.ids, first.positions), first.mask).item()
        with torch.no_grad():
            for matrix in own.scaled:
                matrix.mul_(scale)
        places = [self.layers.index(n) for n in (shape.exit_layer, deep, self.config.num_layers)]
        return Run(
            config=config,
            target_config=self.config,
            target=target,
            student=own,
            optimizer=new_optimizer(own, config.optim, scale),
            rope=rope_table(self.config, torch.device("cpu")),
            windows=windows,
            held_windows=self.texts.held["code"].evenly(12),
            prompts=self.texts.prompts("code", given.num_prompts),
            features=Kept(target, source.store, source.rows, (places[0], places[1], places[2])),
        )

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


def trained(run: Run) -> float:
    """All steps; the mean loss of the last 50."""
    standing, losses = Standing(), list[float]()
    for _ in range(run.config.optim.num_steps):
        losses.append(take_step(run, standing).loss)
    return sum(losses[-50:]) / len(losses[-50:])
