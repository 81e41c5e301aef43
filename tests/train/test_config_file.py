"""YAML and key=value become a config, or an error that names the key and what was expected."""

from pathlib import Path
from typing import Any

import pytest

from kangaroo.train.config import LossConfig, TrainConfig
from kangaroo.train.config_file import as_yaml, parse_setting, read_config
from tests.train.tiny import changed

PLAIN = TrainConfig(Path("m"), Path("d"), Path("o"))
PATHS = {"model": "m", "data": "d", "out": "o"}


def read(folder: Path, text: str, *settings: str, paths: dict[str, str] = PATHS) -> TrainConfig:
    file = folder / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return read_config(file, [*paths.items(), *map(parse_setting, settings)])


def test_sections_and_settings_above_them(tmp_path: Path) -> None:
    text = "optim: {lr: 3e-4, betas: [0.8, 0.9]}\nwindows:\n  moving: false\n"
    config = read(tmp_path, text, "optim.lr=1e-3", "features.folder=kept", "resume=true")
    expected = {"optim.lr": 1e-3, "optim.betas": (0.8, 0.9), "windows.moving": False}
    expected |= {"features.folder": Path("kept"), "resume": True}
    assert config == changed(PLAIN, expected)
    assert read_config(None, PATHS.items()) == PLAIN


def test_a_loss_that_is_not_named_has_no_weight(tmp_path: Path) -> None:
    assert read(tmp_path, "seed: 0").loss == LossConfig(soft=1.0)
    assert read(tmp_path, "loss: {tv: 1}").loss == LossConfig(tv=1.0)
    assert read(tmp_path, "loss: {soft: 1}", "loss.tv=0.5").loss == LossConfig(soft=1.0, tv=0.5)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    changes = {"optim.lr": 1e-17, "optim.betas": (0.1, 0.2), "windows.moving": False}
    config = changed(PLAIN, changes | {"features.folder": Path("f"), "data": Path("3e-4")})
    assert read(tmp_path, as_yaml(config), paths={}) == config


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("optim: {rate: 1}", (), r"^optim\.rate: unknown; expected one of num_steps, lr, "),
        ("steps: 1", (), "^steps: unknown; expected one of model, data, out, "),
        ("seed: 0", ("optim.lrr=1",), r"^optim\.lrr: unknown"),
        ("optim: {lr: fast}", (), r"^optim\.lr: expected a number, got 'fast'"),
        ("optim: {lr: true}", (), r"^optim\.lr: expected a number, got True"),
        ("optim: {num_steps: 1.5}", (), r"^optim\.num_steps: expected a whole number, got 1\.5"),
        ("optim: {num_steps: true}", (), r"^optim\.num_steps: expected a whole number, got True"),
        ("optim: {betas: [0.9]}", (), r"^optim\.betas: expected 2 numbers, got \[0\.9\]"),
        ("optim: {decay: step}", (), r"^optim\.decay: expected one of linear, cosine, got 'step'"),
        ("resume: 1", (), "^resume: expected true or false, got 1"),
        ("device: ''", (), "^device: expected a text, got ''"),
        ("optim:", (), "^optim: expected a section, got None"),
        ("optim: 3", ("optim.lr=1",), r"^optim\.lr: expected optim to be a section, got 3"),
        ("optim: {lr: 0}", (), r"^optim\.lr: expected more than 0, got 0\.0"),
        ("seed: 0\nseed: 1", (), r"run\.yaml: seed: expected once, got again in line 2"),
        ("optim: {lr: 1, lr: 2}", (), r"run\.yaml: lr: expected once, got again in line 1"),
        ("seed: 0", ("seed=1", "seed=2"), "^seed: expected once, got twice"),
        ("seed: 0", ("loss={tv: 1, tv: 2}",), "^loss: tv: expected once, got again in line 1"),
        ("seed: 0", ("seed",), "^seed: expected key=value"),
        ("seed: [", (), r"run\.yaml: not valid YAML"),
        ("seed: !!python/object/apply:os.getcwd []", (), r"run\.yaml: not valid YAML"),
        ("- seed", (), r"run\.yaml: expected keys and values, got \['seed'\]"),
    ],
)
def test_refused(tmp_path: Path, text: str, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text, *settings)


def test_paths_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^out: expected a path, .* as --out or out="):
        read(tmp_path, "model: m\ndata: d", paths={})
    with pytest.raises(ValueError, match=r"absent\.yaml: cannot be read: No such file"):
        read_config(tmp_path / "absent.yaml", ())
