"""A checkpoint is whole or the one before it; another run's is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kangaroo.train.checkpoint import (
    CHECKPOINT,
    METRICS,
    Checkpoint,
    append_metrics,
    load_checkpoint,
    save_checkpoint,
    trim_metrics,
)

RUN = {"lr": "0.1", "seed": "0"}


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(
        RUN, step, {"o": torch.full((3,), float(step))}, {"state": {0: {"step": step}}}
    )


def test_round_trip(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "run", RUN) is None
    save_checkpoint(tmp_path / "run", checkpoint(1))
    save_checkpoint(tmp_path / "run", checkpoint(2))
    loaded = load_checkpoint(tmp_path / "run", RUN)
    assert loaded is not None
    assert loaded.step == 2
    assert loaded.adapter["o"].tolist() == [2.0] * 3
    assert [file.name for file in (tmp_path / "run").iterdir()] == [CHECKPOINT]


def test_a_crash_while_writing_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, checkpoint(1))

    def half_written(_content: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half_written)
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(tmp_path, checkpoint(2))
    loaded = load_checkpoint(tmp_path, RUN)
    assert loaded is not None
    assert loaded.step == 1
    save_checkpoint(tmp_path, checkpoint(3))
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT]


def test_another_run_s_checkpoint_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    with pytest.raises(ValueError, match=r"lr: the run was started with 0\.1, got 0\.2"):
        load_checkpoint(tmp_path, RUN | {"lr": "0.2"})


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    file = tmp_path / CHECKPOINT
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match=r"checkpoint\.pt: truncated or corrupt"):
        load_checkpoint(tmp_path, RUN)


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    trim_metrics(tmp_path, 0)
    for step in (1, 2, 3):
        append_metrics(tmp_path, {"step": step})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 4, "lo')  # what a power cut leaves
    trim_metrics(tmp_path, 2)
    append_metrics(tmp_path, {"step": 3})
    assert (tmp_path / METRICS).read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
