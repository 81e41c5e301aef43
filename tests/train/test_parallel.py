"""Two processes train the adapter that one trains, whether or not they share the target out."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kangaroo.train.checkpoint import METRICS, load_checkpoint, run_folder
from kangaroo.train.config import TrainConfig
from kangaroo.train.progress import TrainProgress
from kangaroo.train.trainer import REPORT, train_adapter
from tests.train.forks import together
from tests.train.tiny import changed, make_config

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="its processes are forks")


@pytest.fixture
def config(target: Path, tmp_path: Path) -> TrainConfig:
    """Four passes a step."""
    return make_config(tmp_path, target, {"windows.accumulation": 4, "optim.num_steps": 4})


def quiet(_progress: TrainProgress) -> None:
    pass


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="whole"),
        pytest.param({"shard_target": True}, id="sharded", marks=pytest.mark.fuzz),
        pytest.param(
            {"shard_target": True, "windows.moving": False, "features.folder": "features"},
            id="sharded, kept",
        ),
    ],
)
def test_two_processes_are_one(
    config: TrainConfig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    if "features.folder" in changes:
        changes = changes | {"features.folder": tmp_path / changes["features.folder"]}
    apart = changed(config, changes | {"out": tmp_path / "apart"})
    alone = changed(apart, {"shard_target": False, "features.folder": None, "out": config.out})
    assert together(2, tmp_path / "store", lambda: train_adapter(apart, quiet) and None) == [0, 0]
    train_adapter(alone, quiet)
    one, two = (load_file(c.out / "adapter.safetensors") for c in (alone, apart))
    for name, tensor in one.items():
        assert (two[name] - tensor).abs().max() <= 1e-6, name
    losses = [[line["loss"] for line in metrics(c.out)] for c in (alone, apart)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert [line["step"] for line in metrics(apart.out)] == [1, 2, 3, 4]
    reports = [json.loads((c.out / REPORT).read_text()) for c in (alone, apart)]
    assert reports[0]["best"] == reports[1]["best"]
    assert not run_folder(apart.out).exists()


def test_an_interrupt_of_one_ends_them_all_behind_the_same_step(
    config: TrainConfig, tmp_path: Path
) -> None:
    def press(progress: TrainProgress) -> None:
        if progress.step == 2:
            signal.raise_signal(signal.SIGINT)

    def train() -> None:
        report = train_adapter(config, press)
        assert (report.completed, report.num_steps) == (False, 2)

    assert together(2, tmp_path / "store", train) == [0, 0]
    saved = load_checkpoint(run_folder(config.out), config.trajectory())
    assert saved is not None
    assert saved.step == 2


def test_what_cannot_be_shared_out(config: TrainConfig, tmp_path: Path) -> None:
    def refused() -> None:
        with pytest.raises(ValueError, match=r"windows\.accumulation: expected a multiple of 2"):
            train_adapter(changed(config, {"windows.accumulation": 3}), quiet)

    assert together(2, tmp_path / "store", refused) == [0, 0]
    with pytest.raises(ValueError, match="shard_target: expected several processes"):
        train_adapter(replace(config, shard_target=True), quiet)
    assert not torch.distributed.is_initialized()
