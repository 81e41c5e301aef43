"""TensorBoard and Weights & Biases get every step's figures once, or are missed at once."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kangaroo.train.checkpoint import run_folder
from kangaroo.train.progress import TrainProgress
from kangaroo.train.tracking import figures_of
from kangaroo.train.trainer import train_adapter
from kangaroo_kernels import UnsupportedError
from tests.train.tiny import changed, make_config

BOARD = "torch.utils.tensorboard"


class Recorder:
    """A stand-in for both packages."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.closed = 0

    def SummaryWriter(self, folder: str, purge_step: int) -> Any:
        self.calls.append((folder, purge_step))
        return SimpleNamespace(add_scalar=self.log_one, close=self.close)

    def init(self, project: str, name: str, config: dict[str, str]) -> Any:
        self.calls.append((project, name, config["optim.num_steps"]))
        return SimpleNamespace(log=self.log, finish=self.close)

    def log_one(self, name: str, value: float, step: int) -> None:
        self.calls.append((name, value, step))

    def log(self, figures: dict[str, float], step: int) -> None:
        self.calls += [(name, value, step) for name, value in figures.items()]

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("module", "changes", "opened"),
    [
        (BOARD, {"tracking.tensorboard": Path("events")}, ("events", 1)),
        ("wandb", {"tracking.wandb": "kangaroos"}, ("kangaroos", "adapter", "6")),
    ],
)
def test_figures_arrive(
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    changes: dict[str, Any],
    opened: Any,
) -> None:
    recorder, seen = Recorder(), list[TrainProgress]()
    stand_in = ModuleType(module)
    stand_in.SummaryWriter, stand_in.init = recorder.SummaryWriter, recorder.init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, stand_in)
    train_adapter(make_config(tmp_path, target, changes), seen.append)
    expected = [(k, v, now.step) for now in seen for k, v in figures_of(now).items()]
    assert recorder.calls == [opened, *expected]
    assert recorder.closed == 1
    names = {name for name, _, step in expected if step == 3}
    assert {"loss", "agreement/1", "agreement/3", "deployed/compression_ratio"} <= names
    assert {name for name, _, step in expected if step == 2} == {"loss", "lr", "tokens_per_s"}


@pytest.mark.parametrize(("module", "field"), [(BOARD, "tensorboard"), ("wandb", "wandb")])
def test_a_package_that_is_missing_is_named_before_the_first_step(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, field: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    config = make_config(tmp_path, target)
    value = Path("events") if field == "tensorboard" else "kangaroos"
    with pytest.raises(UnsupportedError, match=rf"^tracking\.{field}: needs the package {field}"):
        train_adapter(changed(config, {f"tracking.{field}": value}), lambda _now: None)
    assert not run_folder(config.out).exists()
