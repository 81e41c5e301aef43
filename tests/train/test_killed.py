"""A run that is killed, wherever it is, and taken up again ends as if nothing had happened."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kangaroo.train.checkpoint import METRICS, run_folder
from kangaroo.train.config import TrainConfig
from kangaroo.train.trainer import REPORT, train_adapter
from tests.train.forks import ended, forked
from tests.train.tiny import make_config

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork of this process")

# What a run does to the disk: before each of these, and behind each step, it may be killed.
EVENTS = ((os, "fsync"), (os, "unlink"), (os, "rmdir"), (Path, "rename"), (Path, "replace"))
NUM_POINTS = 20


def killed_at(config: TrainConfig, number: int, log: Path) -> bool:
    """Train in a fork that is killed at its n-th event; False: it had fewer, and counted them."""
    code = ended(forked(lambda: log.write_text(str(_train_until(config, number))) and None))
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _train_until(config: TrainConfig, number: int) -> int:
    events = 0

    def event(*_: Any) -> None:
        nonlocal events
        events += 1
        if events == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            event()
            return real(*args, **kwargs)

        return call

    for owner, name in EVENTS:
        setattr(owner, name, counted(getattr(owner, name)))
    train_adapter(config, event)
    return events


def result(config: TrainConfig) -> tuple[bytes, Any, list[Any]]:
    """Adapter, its config, metrics and report; the times of a run are its own."""
    lines = [json.loads(line) for line in (config.out / METRICS).read_text().splitlines()]
    report = json.loads((config.out / REPORT).read_text())
    own = {"seconds", "tokens_per_s", "out"}
    kept = [{k: v for k, v in line.items() if k not in own} for line in [*lines, report]]
    described = json.loads((config.out / "config.json").read_text())
    return (config.out / "adapter.safetensors").read_bytes(), described, kept


@pytest.mark.parametrize(
    "points",
    [pytest.param(2, id="few"), pytest.param(NUM_POINTS, id="many", marks=pytest.mark.fuzz)],
)
def test_a_killed_run_resumes_bit_for_bit(target: Path, tmp_path: Path, points: int) -> None:
    config, log = replace(make_config(tmp_path, target), resume=True), tmp_path / "log"
    assert not killed_at(config, 0, log)
    expected, num_events = result(config), int(log.read_text())
    assert num_events > 60
    shutil.rmtree(config.out)
    for point in range(points):
        number = 1 + (point + 1) * num_events // (points + 1)
        assert killed_at(config, number, log)
        assert not killed_at(config, 0, log)
        assert result(config) == expected, number
        assert not run_folder(config.out).exists()
        shutil.rmtree(config.out)
