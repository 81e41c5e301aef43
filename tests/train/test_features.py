"""States from disk are the target's own, bit for bit; another run's are refused."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kangaroo.train import features
from kangaroo.train.config import TrainConfig
from kangaroo.train.features import KEY, open_features
from kangaroo.train.parallel import ALONE
from kangaroo.train.progress import TrainProgress
from kangaroo.train.run import prepare, with_features
from kangaroo.train.target import FrozenTarget
from kangaroo.train.trainer import accumulate_gradient, train_adapter
from kangaroo.train.windows import Windows
from tests.train.tiny import changed, make_config, write_jsonl


@pytest.fixture
def config(target: Path, tmp_path: Path) -> TrainConfig:
    """Texts, one of them twice, and a conversation; shards of two windows."""
    lines: list[dict[str, Any]] = [{"text": f"{n} kangaroos hop, {'he' * n}"} for n in range(24)]
    lines += [{"input_ids": [1, *range(9, 40)], "loss_mask": [0, 1] * 16}] * 2
    changes = {"windows.moving": False, "features.folder": tmp_path / "features", "eval.every": 0}
    config = make_config(tmp_path, target, changes)
    return replace(config, data=write_jsonl(tmp_path / "mixed.jsonl", lines))


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "SHARD_BYTES", 2 * (2 * 4 * 24 * 64) + 7)


def in_process(config: TrainConfig) -> TrainConfig:
    return changed(config, {"features.folder": None, "out": config.out.with_name("in-process")})


def quiet(_progress: TrainProgress) -> None:
    pass


def test_a_run_from_the_folder_has_the_bits_of_one_in_process(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that writes it, and one that could not even ask the target."""
    train_adapter(config, quiet)
    train_adapter(in_process(config), quiet)
    run = with_features(prepare(config))
    monkeypatch.setattr(FrozenTarget, "states", None)
    accumulate_gradient(run, step=0)
    gradients = [p.grad for p in run.student.module.parameters()]
    monkeypatch.undo()
    straight = prepare(in_process(config))
    accumulate_gradient(straight, step=0)
    for grad, p in zip(gradients, straight.student.module.parameters(), strict=True):
        assert grad is not None
        assert p.grad is not None
        assert torch.equal(grad, p.grad)
    kept, made = (
        load_file(path.out / "adapter.safetensors") for path in (config, in_process(config))
    )
    assert all(torch.equal(kept[name], made[name]) for name in made)
    shards = list((config.features.folder or Path()).glob("*.safetensors"))
    assert len(shards) == -(-len(run.windows) // 2) > 3


@pytest.mark.parametrize(("dtype", "exact"), [("auto", True), ("float16", False)])
def test_sixteen_bits_hold_what_a_target_of_sixteen_bits_says(
    config: TrainConfig, dtype: str, exact: bool
) -> None:
    run = with_features(prepare(changed(config, {"dtype": "bfloat16", "features.dtype": dtype})))
    windows = run.windows.sample(0, 2)
    read, said = run.states(windows), run.target.states(windows.ids, windows.positions)
    for name in ("exit", "last", "normed"):
        one, other = getattr(read, name), getattr(said, name)
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=2e-2, atol=1e-3)
        assert torch.equal(one, other) or not exact


def test_the_same_tokens_in_other_documents_are_another_window(config: TrainConfig) -> None:
    run = prepare(config)
    slots = torch.arange(24)
    ids, positions = slots.expand(2, 24) + 7, torch.stack([slots, slots % 12])
    windows = Windows(ids, positions >= 0, positions)
    states = open_features(config, run.target, windows, ALONE).states(windows)
    assert torch.equal(states.exit, run.target.states(ids, positions).exit)
    assert not torch.equal(states.exit[0], states.exit[1])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"adapter.exit_layer": 1}, "exit_layer"),
        ({"windows.seq_len": 20}, "windows"),
        ({"windows.held_out_fraction": 0.5}, "windows"),
        ({"features.dtype": "bfloat16"}, "dtype"),
        ({"dtype": "bfloat16"}, "target_dtype"),
    ],
)
def test_another_run_s_features_are_refused(
    config: TrainConfig, changes: dict[str, Any], name: str
) -> None:
    with_features(prepare(config))
    with pytest.raises(ValueError, match=rf"features\.folder: .*: {name}: expected .*, got "):
        with_features(prepare(changed(config, changes)))


def test_another_target_s_features_are_refused(
    config: TrainConfig, tmp_path: Path, target: Path
) -> None:
    """The deep layers count too."""
    with_features(prepare(config))
    other = shutil.copytree(target, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.layers.3.mlp.up_proj.weight"][0, 0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"features\.folder: .*: target: expected "):
        with_features(prepare(replace(config, model=other)))


def test_a_folder_is_whole_or_not_there(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = config.features.folder or Path()
    run, fsync = prepare(config), os.fsync
    flushed = 0

    def full(handle: int) -> None:
        nonlocal flushed
        flushed += 1
        if flushed == 3:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            with_features(run)
    assert not [path for path in folder.parent.iterdir() if "features" in path.name]
    with_features(run)
    shard = folder / "000001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"000001\.safetensors: damaged: size: expected"):
        with_features(run)
    shard.unlink()
    with pytest.raises(ValueError, match=r"000001\.safetensors: missing"):
        with_features(run)
    (folder / KEY).unlink()
    with pytest.raises(ValueError, match="missing"):
        with_features(run)


def test_a_folder_that_is_being_written_is_not_touched(config: TrainConfig) -> None:
    folder = config.features.folder or Path()
    (folder.parent / f".{folder.name}.new").mkdir()
    with pytest.raises(ValueError, match="another process writes here, or was killed"):
        with_features(prepare(config))


def test_the_disk_is_asked_first(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(features.shutil, "disk_usage", lambda _path: Usage)
    with pytest.raises(ValueError, match=r"features\.folder: .* expected 0\.\d GB of free space"):
        with_features(prepare(config))
