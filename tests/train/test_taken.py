"""What a run finds in its way is refused before its first step, by the run and by its plan."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kangaroo.train.config import TrainConfig, run_folder
from kangaroo.train.plan import plan
from kangaroo.train.progress import TrainProgress
from kangaroo.train.target import FrozenTarget
from kangaroo.train.trainer import train_adapter
from tests.factories import edit_json, edit_tensors
from tests.train.tiny import changed, make_config, write_jsonl


def interrupt(progress: TrainProgress) -> None:
    if progress.step == 3:
        raise KeyboardInterrupt


def refused(config: TrainConfig, message: str) -> None:
    """By the run, in front of its first step, and by its plan."""
    steps: list[int] = []
    with pytest.raises(ValueError, match=message):
        train_adapter(config, lambda progress: steps.append(progress.step))
    assert steps == []
    with pytest.raises(ValueError, match=message):
        plan(config)


@pytest.fixture
def own(target: Path, tmp_path: Path) -> Path:
    """A target to be changed."""
    return shutil.copytree(target, tmp_path / "target")


def pickled(file: Path) -> None:
    torch.save(load_file(file), file.with_name("pytorch_model.bin"))
    file.unlink()


def surplus(file: Path) -> None:
    edit_tensors(file, lambda tensors: tensors.update({"model.mtp.weight": torch.zeros(3)}))


def missing(file: Path) -> None:
    edit_tensors(file, lambda tensors: tensors.pop("model.layers.3.mlp.up_proj.weight"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (pickled, r"only pickled \*\.bin weights"),
        (surplus, "surplus tensor model.mtp.weight"),
        (missing, "missing tensor model.layers.3.mlp.up_proj.weight"),
    ],
)
def test_a_target_that_the_engine_cannot_read(
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    edit: Callable[[Path], None],
    message: str,
) -> None:
    """Before transformers, which can, reads its weights."""
    monkeypatch.setattr(FrozenTarget, "load", lambda *_: pytest.fail("loaded"))
    edit(own / "model.safetensors")
    config = make_config(tmp_path, own)
    refused(config, message)
    assert not run_folder(config.out).exists()


def test_a_taken_out(target: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, target)
    config.out.write_text("mine")
    refused(config, "out: .* exists and holds no adapter")
    config.out.unlink()
    config.out.mkdir()
    (config.out / "thesis.tex").touch()
    refused(config, "out: .* exists and holds no adapter")


@pytest.mark.parametrize("name", ["thesis.tex", "journal.jsonl", "step-of-mine"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_run_folder_with_something_else(
    target: Path, tmp_path: Path, name: str, resume: bool
) -> None:
    config = replace(make_config(tmp_path, target), resume=resume)
    stranger = run_folder(config.out) / name
    stranger.mkdir(parents=True)
    refused(config, f"out: .*{name} is no part of a training run")
    assert stranger.exists()


def test_what_comes_to_a_run_s_folder_stays(target: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, target)
    stranger = run_folder(config.out) / "thesis.tex"
    assert train_adapter(config, lambda _progress: stranger.touch()).completed
    assert [path.name for path in stranger.parent.iterdir()] == ["thesis.tex"]


def other_weights(config: TrainConfig) -> None:
    """Of the deepest layer, which no adapter shares."""
    name = "model.layers.3.mlp.up_proj.weight"
    edit_tensors(config.model / "model.safetensors", lambda tensors: tensors[name].mul_(1.5))


def other_eps(config: TrainConfig) -> None:
    edit_json(config.model / "config.json", rms_norm_eps=1e-3)


def other_end(config: TrainConfig) -> None:
    edit_json(config.model / "generation_config.json", eos_token_id=[2, 4])


def other_end_of_the_tokenizer(config: TrainConfig) -> None:
    edit_json(config.model / "tokenizer_config.json", eos_token="<end>")


def edited_text(number: int) -> Callable[[TrainConfig], None]:
    """Another text in one line."""

    def edit(config: TrainConfig) -> None:
        lines: list[Any] = config.data.read_text().splitlines()
        lines[number] = lines[number].replace("sleep", "sleeq")
        write_jsonl(config.data, lines)

    return edit


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (other_weights, "model: weights"),
        (other_eps, "model: config"),
        (other_end, "model: bos and eos tokens"),
        (other_end_of_the_tokenizer, "model: bos and eos tokens"),
        (edited_text(0), "data: (training|held-out) documents"),
        (edited_text(7), "data: (training|held-out) documents"),
    ],
)
def test_contents_that_changed_behind_their_paths(
    own: Path, tmp_path: Path, edit: Callable[[TrainConfig], None], name: str
) -> None:
    config = make_config(tmp_path, own)
    assert not train_adapter(config, interrupt).completed
    edit(config)
    refused(replace(config, resume=True), f"resume: {name}: the run was started with")


def test_features_that_lose_bits(target: Path, tmp_path: Path) -> None:
    """Whether they are kept may change in a run only where they are the target's very states."""
    plain = make_config(tmp_path, target, {"windows.moving": False})
    for dtype, loses in (("auto", False), ("bfloat16", True)):
        without = changed(replace(plain, out=tmp_path / dtype), {"features.dtype": dtype})
        kept = changed(without, {"features.folder": tmp_path / f"{dtype}-states"})
        assert not train_adapter(kept, interrupt).completed
        resumed = replace(without, resume=True)
        if loses:
            refused(resumed, "features: states rounded to: .* torch.bfloat16, got nothing")
        else:
            assert train_adapter(resumed, lambda _progress: None).completed
