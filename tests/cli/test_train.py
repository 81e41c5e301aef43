"""`kangaroo train`: file, options and key=value arrive, results are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.main import get_command

from kangaroo.cli import app
from kangaroo.cli_train import KEYS
from kangaroo.train import trainer
from kangaroo.train.config import TrainConfig, flat
from kangaroo.train.config_file import as_yaml, read_config
from kangaroo.train.evaluate import Agreement
from kangaroo.train.progress import TrainProgress, TrainReport
from kangaroo.train.simulate import Replay
from tests.cli.conftest import Run
from tests.train.tiny import changed, make_config, make_target

BEST = Replay(0.4, 5, 2.5, drafts_per_round=3.0, speedup=1.8)
REPORT = TrainReport(
    Path("out"), True, 7, 3.5, 1234.0, 5, Agreement((1, 2), (0.5, 0.25), (0.4, 0.3), 9)
)


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The configs of the runs that were asked for; each "succeeds" at once."""
    seen: list[TrainConfig] = []

    def train_adapter(
        config: TrainConfig, on_progress: Callable[[TrainProgress], None]
    ) -> TrainReport:
        seen.append(config)
        on_progress(TrainProgress(1, config.optim.num_steps, 2.0, 1e-3, 100.0))
        return replace(REPORT, out=config.out, completed=not config.resume, best=BEST)

    monkeypatch.setattr(trainer, "train_adapter", train_adapter)
    return seen


def test_training_options(run: Run, configs: list[TrainConfig]) -> None:
    """All of them arrive, and what is left out keeps the config's own default."""
    base = ["train", "--model", "m", "--data", "d", "--out", "o"]
    assert run(*base).exit_code == 0
    assert configs[0] == TrainConfig(Path("m"), Path("d"), Path("o"))
    adapter = {"kind": "paper", "exit_layer": 3, "max_depth": 4}
    windows, optim = {"batch_size": 6, "seq_len": 7}, {"num_steps": 5, "lr": 0.5}
    plain = {"seed": 8, "dtype": "bfloat16", "device": "cpu"}
    flags = [
        text
        for name, value in (adapter | windows | optim | plain).items()
        for text in ("--" + name.removeprefix("num_").replace("_", "-"), value)
    ]
    run(*base, *flags, "--resume")
    changes = plain | {"resume": True}
    for section, values in {"adapter": adapter, "windows": windows, "optim": optim}.items():
        changes |= {f"{section}.{name}": value for name, value in values.items()}
    assert configs[1] == changed(configs[0], changes)


def test_the_defaults_it_shows_are_the_config_s() -> None:
    (command,) = [c for c in get_command(app).commands.values() if c.name == "train"]  # type: ignore[attr-defined]
    plain = flat(TrainConfig(Path("m"), Path("d"), Path("o")))
    shown = {p.name: p.show_default for p in command.params if isinstance(p.show_default, str)}
    del shown["threads"]
    assert shown == {name: str(plain[KEYS.get(name, name)]) for name in shown}
    assert len(shown) == 10


def test_a_config_from_a_file(run: Run, configs: list[TrainConfig], tmp_path: Path) -> None:
    """Options and key=value go above it; both at once are refused."""
    file = tmp_path / "run.yaml"
    file.write_text("{model: m, data: d, out: o, seed: 3, optim: {lr: 1, num_steps: 9}}")
    assert run("train", "-c", file, "optim.lr=3e-4", "--out", "p").exit_code == 0
    changes = {"out": Path("p"), "seed": 3, "optim.lr": 3e-4, "optim.num_steps": 9}
    assert configs[0] == changed(TrainConfig(Path("m"), Path("d"), Path("o")), changes)
    result = run("train", "-c", file, "optim.lr=3e-4", "--lr", 1)
    assert (result.exit_code, len(configs)) == (2, 1)
    assert result.stderr.startswith("error: optim.lr: expected once, got twice")


def test_a_file_in_another_encoding_is_named(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("{model: m, data: d, out: o}", encoding="utf-16")
    result = run("train", "-c", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: {file}: expected UTF-8, got other bytes at 0\n"


def test_a_dry_run_tells_and_writes_nothing(
    run: Run, configs: list[TrainConfig], tmp_path: Path
) -> None:
    """What it shows is a file that asks for the same run."""
    config = make_config(tmp_path, make_target(tmp_path / "target"))
    file = tmp_path / "run.yaml"
    file.write_text(as_yaml(config))
    before = set(tmp_path.iterdir())
    result = run("train", "-c", file, "--dry-run")
    assert (result.exit_code, configs) == (0, [])
    assert "# steps: 6, which is" in result.stdout
    told = json.loads(run("train", "-c", file, "--dry-run", "--json").stdout)["plan"]
    (line,) = run("train", "-c", file, "--dry-run", "--json-lines").stdout.splitlines()
    assert json.loads(line)["plan"].keys() == told.keys()
    assert set(tmp_path.iterdir()) == before
    file.write_text(result.stdout)
    assert read_config(file, ()) == config
    assert told["num_epochs"] == 6 * 2 / told["num_windows"]
    assert told["feature_bytes"] == told["num_windows"] * 24 * 2 * 64 * 4


def test_training_results(run: Run, configs: list[TrainConfig]) -> None:
    base = ["train", "--model", "m", "--data", "d", "--out", "o"]
    result = run(*base, "--json")
    report = json.loads(result.stdout)
    assert (report["out"], report["best"]["confidence"]) == ("o", 0.4)
    result = run(*base)
    assert "wrote o after 7 steps" in result.stdout
    assert "the one after 5 steps" in result.stdout
    assert "2.50 tokens per verify pass" in result.stdout
    interrupted = run(*base, "--resume")
    assert interrupted.exit_code == 130
    assert "--resume continues" in interrupted.stdout


def test_lines_of_json(run: Run, configs: list[TrainConfig]) -> None:
    """Every step, then the report."""
    result = run("train", "--model", "m", "--data", "d", "--out", "o", "--json-lines")
    step, report = map(json.loads, result.stdout.splitlines())
    assert step == TrainProgress(1, 1000, 2.0, 1e-3, 100.0).record()
    assert "held_out" not in step
    assert report["kept_step"] == 5


def test_training_that_cannot_be_meant(run: Run, configs: list[TrainConfig]) -> None:
    result = run("train", "--model", "m", "--data", "d", "--out", "o", "--steps", 0)
    assert (result.exit_code, result.stderr) == (
        2,
        "error: optim.num_steps: expected at least 1, got 0\n",
    )
    result = run("train", "--data", "d", "--out", "o")
    assert result.exit_code == 2
    assert "--model" in result.stderr
