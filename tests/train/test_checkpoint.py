"""A checkpoint is whole or the one before it, whatever happens; another run's is refused."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kangaroo.models.files import file_sha256
from kangaroo.train import checkpoint as module
from kangaroo.train.checkpoint import (
    METRICS,
    Best,
    Checkpoint,
    append_metrics,
    check_own,
    load_checkpoint,
    remove_own,
    save_checkpoint,
    trim_metrics,
)
from kangaroo.train.simulate import Replay
from kangaroo.train.whole import MANIFEST
from tests.factories import edit_json

RUN, CONTENTS = {"lr": "0.1", "seed": "0"}, {"data": "ab", "model": "cd"}
FILES = ("adapter.safetensors", "best.safetensors", "optimizer.safetensors", "state.json", MANIFEST)


def checkpoint(step: int) -> Checkpoint:
    tensors = {"o": torch.full((3,), float(step))}
    groups = [{"lr": 1e-3 / 3, "betas": (0.9, 0.95), "lr_scale": step / 7, "params": [0]}]
    moments = {0: {"step": torch.tensor(float(step)), "exp_avg": torch.ones(3)}}
    best = Best(step - 1, Replay(0.1, 2, 1 / 3, 2.0, speedup=1.7), {"o": torch.zeros(3)})
    optimizer = {"state": moments, "param_groups": groups}
    return Checkpoint(RUN, CONTENTS, step, tensors, optimizer, best)


def loaded_step(folder: Path) -> int | None:
    loaded = load_checkpoint(folder, RUN)
    return None if loaded is None else loaded.step


def test_round_trip(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "run", RUN) is None
    save_checkpoint(tmp_path / "run", checkpoint(9))
    save_checkpoint(tmp_path / "run", checkpoint(10))
    loaded, saved = load_checkpoint(tmp_path / "run", RUN), checkpoint(10)
    assert loaded is not None
    assert loaded.best is not None
    assert (loaded.step, loaded.best.step) == (10, 9)
    assert loaded.best.replay == Replay(0.1, 2, 1 / 3, 2.0, 1.7)
    assert loaded.adapter["o"].tolist() == [10.0] * 3
    assert loaded.best.adapter["o"].tolist() == [0.0] * 3
    assert loaded.optimizer["param_groups"] == saved.optimizer["param_groups"]
    assert loaded.optimizer["state"][0]["step"] == 10.0
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-00000010"]
    assert sorted(path.name for path in (tmp_path / "run" / "step-00000010").iterdir()) == sorted(
        FILES
    )


def breaking(monkeypatch: pytest.MonkeyPatch, error: Callable[[], None]) -> Callable[[int], None]:
    """Set up `error` at the n-th time that something is about to reach the disk or its names."""

    def arm(number: int) -> None:
        events = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal events
                events += 1
                if events == number:
                    error()
                return real(*args, **kwargs)

            return call

        for owner, name in ((os, "fsync"), (Path, "rename"), (shutil, "rmtree"), (Path, "mkdir")):
            monkeypatch.setattr(owner, name, counted(getattr(owner, name)))

    return arm


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_at_any_moment_leaves_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every flush, rename, removal and folder in turn; the run then goes on."""
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _handle: None)  # a test's folder may be lost
    for number in range(1, 40):
        folder = tmp_path / f"{number}"
        save_checkpoint(folder, checkpoint(1))
        with monkeypatch.context() as patch:
            breaking(patch, full)(number)
            try:
                save_checkpoint(folder, checkpoint(2))
                whole = True
            except OSError:
                whole = False
        seen.append((whole, loaded_step(folder)))
        save_checkpoint(folder, checkpoint(3))
        assert [path.name for path in folder.iterdir()] == ["step-00000003"]
    assert {step for _, step in seen} == {1, 2}
    assert all(step == 2 for whole, step in seen if whole)
    assert seen.count((False, 1)) > 8  # five files, the folder, its names
    assert seen[-1] == (True, 2)


def test_a_write_cut_short_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some bytes of the n-th file, then no space: of every file in turn."""
    save_checkpoint(tmp_path, checkpoint(1))
    real, written = os.fsync, list[Path]()
    for number in range(len(FILES)):
        flushed = 0

        def cut_short(handle: int) -> None:
            nonlocal flushed
            if flushed == number:  # noqa: B023
                os.truncate(handle, 5)
                full()
            flushed += 1
            real(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", cut_short)
            with pytest.raises(OSError, match="No space left"):
                save_checkpoint(tmp_path, checkpoint(2))
        written += tmp_path.iterdir()
        assert loaded_step(tmp_path) == 1
    assert {path.name for path in written} == {"step-00000001"}


def test_what_a_kill_leaves_is_not_loaded_and_goes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000002.new")
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".step-00000000.old")
    (tmp_path / f".{METRICS}.new").touch()
    assert loaded_step(tmp_path) == 1
    save_checkpoint(tmp_path, checkpoint(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "empty"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    file = tmp_path / "step-00000001" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        file.unlink()
    else:
        kept = {"truncated": content[:-3], "altered": content, "empty": b""}[damage]
        file.write_bytes(kept)
    with pytest.raises(ValueError, match=r"step-00000001/\w+\.\w+: .*"):
        load_checkpoint(tmp_path, RUN)


def test_a_surplus_file_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    (tmp_path / "step-00000001" / "more").touch()
    with pytest.raises(ValueError, match=r"more: not in manifest\.json"):
        load_checkpoint(tmp_path, RUN)


def test_another_run_s_checkpoint_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    with pytest.raises(ValueError, match=r"lr: the run was started with 0\.1, got 0\.2"):
        load_checkpoint(tmp_path, RUN | {"lr": "0.2"})


def test_other_contents_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    loaded = load_checkpoint(tmp_path, RUN)
    assert loaded is not None
    loaded.check_contents(CONTENTS)
    with pytest.raises(ValueError, match="resume: model: the run was started with cd, got ef"):
        loaded.check_contents(CONTENTS | {"model": "ef"})


def test_a_checkpoint_without_contents_is_refused(tmp_path: Path) -> None:
    """As older ones are."""
    save_checkpoint(tmp_path, checkpoint(1))
    (path,) = tmp_path.iterdir()
    edit_json(path / "state.json", contents=...)
    facts = {"size": (path / "state.json").stat().st_size}
    edit_json(
        path / MANIFEST, **{"state.json": facts | {"sha256": file_sha256(path / "state.json")}}
    )
    with pytest.raises(ValueError, match=r"state\.json: missing field contents"):
        load_checkpoint(tmp_path, RUN)


def test_what_is_not_a_run_s_own_stays(tmp_path: Path) -> None:
    folder = tmp_path / "out.run"
    save_checkpoint(folder, checkpoint(1))
    append_metrics(folder, {"step": 1})
    check_own(tmp_path / "out")
    strangers = ("step-notes", ".thesis.old", "journal.jsonl", "metrics.jsonl.bak")
    for step, name in enumerate(strangers, start=2):
        (folder / name).touch()
        with pytest.raises(ValueError, match=f"out: .*{name} is no part of a training run"):
            check_own(tmp_path / "out")
        save_checkpoint(folder, checkpoint(step))
        assert (folder / name).exists()
        (folder / name).unlink()
    (folder / ".thesis.old").touch()
    remove_own(tmp_path / "out")
    assert [path.name for path in folder.iterdir()] == [".thesis.old"]


def test_a_run_s_own_folder_goes(tmp_path: Path) -> None:
    check_own(tmp_path / "out")
    save_checkpoint(tmp_path / "out.run", checkpoint(1))
    shutil.copytree(tmp_path / "out.run" / "step-00000001", tmp_path / "out.run/.step-00000002.new")
    remove_own(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_old_ones_go_only_when_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def remove(path: Path) -> None:
        seen.append((path.name, loaded_step(tmp_path)))

    save_checkpoint(tmp_path, checkpoint(1))
    monkeypatch.setattr(module, "remove_folder", remove)
    save_checkpoint(tmp_path, checkpoint(2))
    assert seen == [("step-00000001", 2)]


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    trim_metrics(tmp_path, 0)
    for step in (1, 2, 3):
        append_metrics(tmp_path, {"step": step})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 4, "lo')  # what a power cut leaves
    trim_metrics(tmp_path, 2)
    append_metrics(tmp_path, {"step": 3})
    assert (tmp_path / METRICS).read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
