"""`kangaroo train`, `init-adapter` and `convert-adapter`: options arrive, results are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kangaroo.models import adapter_io
from kangaroo.train import trainer
from kangaroo.train.config import TrainConfig
from kangaroo.train.evaluate import Agreement
from kangaroo.train.progress import TrainProgress, TrainReport
from kangaroo.train.simulate import Replay
from tests.cli.conftest import Run

BEST = Replay(0.4, 5, 2.5, drafts_per_round=3.0, speedup=1.8)
REPORT = TrainReport(
    Path("out"), True, 7, 3.5, 1234.0, Agreement((1, 2), (0.5, 0.25), (0.4, 0.3), 9)
)


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The configs of the runs that were asked for; each "succeeds" at once."""
    seen: list[TrainConfig] = []

    def train_adapter(
        config: TrainConfig, on_progress: Callable[[TrainProgress], None]
    ) -> TrainReport:
        seen.append(config)
        on_progress(TrainProgress(1, config.num_steps, 2.0, 1e-3, 100.0))
        return replace(REPORT, out=config.out, completed=not config.resume, best=BEST)

    monkeypatch.setattr(trainer, "train_adapter", train_adapter)
    return seen


def test_training_options(run: Run, configs: list[TrainConfig]) -> None:
    """All of them arrive, and what is left out keeps the config's own default."""
    base = ["train", "--model", "m", "--data", "d", "--out", "o"]
    assert run(*base).exit_code == 0
    assert configs[0] == TrainConfig(Path("m"), Path("d"), Path("o"))
    options = {"kind": "paper", "exit_layer": 3, "max_depth": 4, "num_steps": 5, "batch_size": 6}
    options |= {"seq_len": 7, "lr": 0.5, "seed": 8, "dtype": "bfloat16", "device": "cpu"}
    flags = [
        text
        for name, value in options.items()
        for text in ("--" + name.removeprefix("num_").replace("_", "-"), value)
    ]
    run(*base, *flags, "--resume")
    assert configs[1] == replace(configs[0], resume=True, **options)  # type: ignore[arg-type]


def test_training_results(run: Run, configs: list[TrainConfig]) -> None:
    base = ["train", "--model", "m", "--data", "d", "--out", "o"]
    result = run(*base, "--json")
    report = json.loads(result.stdout)
    assert (report["out"], report["best"]["confidence"]) == ("o", 0.4)
    result = run(*base)
    assert "wrote o after 7 steps" in result.stdout
    assert "2.50 tokens per verify pass" in result.stdout
    interrupted = run(*base, "--resume")
    assert interrupted.exit_code == 130
    assert "--resume continues" in interrupted.stdout


def test_training_that_cannot_be_meant(run: Run, configs: list[TrainConfig]) -> None:
    result = run("train", "--model", "m", "--data", "d", "--out", "o", "--steps", 0)
    assert (result.exit_code, result.stderr) == (
        2,
        "error: num_steps: expected at least 1, got 0\n",
    )
    result = run("train", "--data", "d", "--out", "o")
    assert result.exit_code == 2
    assert "--model" in result.stderr


def test_init_adapter(run: Run, folder: Path, tmp_path: Path) -> None:
    """The adapter it writes is one that generate takes."""
    out = tmp_path / "adapter"
    base = ["init-adapter", "--model", folder, "--exit-layer", 1, "--out", out, "--kind", "paper"]
    result = run(*base, "--json", "--seed", 0)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["adapter"]["kind"] == "paper"
    packaged = folder / "adapters" / "paper" / "adapter.safetensors"
    assert (out / "adapter.safetensors").read_bytes() == packaged.read_bytes()
    command = ["generate", "x", "--model", folder, "--adapter", out, "--max-new-tokens", 3]
    assert run(*command).exit_code == 0
    assert run(*base[:-2], "--kind", "odd").exit_code == 2
    assert run(*base[:4], 2, *base[5:]).exit_code == 2


def test_convert_adapter(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arguments arrive; a source that is none is refused."""
    out = tmp_path / "adapter"
    flags = ["--model", folder, "--exit-layer", 1, "--out", out]
    result = run("convert-adapter", tmp_path / "absent", *flags)
    assert result.exit_code == 2
    assert "absent" in result.stderr

    def convert(source: Path, model: Path, exit_layer: int, out: Path) -> None:
        assert source == tmp_path
        adapter_io.init_adapter(model, exit_layer, out, "paper", seed=0)

    monkeypatch.setattr(adapter_io, "convert_adapter", convert)
    result = run("convert-adapter", tmp_path, *flags)
    assert (result.exit_code, result.stdout) == (0, f"wrote {out}\n")
