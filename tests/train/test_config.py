"""A run's knobs: what cannot be meant is refused by name; the rate follows its schedule."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kangaroo.train.config import EvalConfig, OptimConfig, TrainConfig, lr_at
from tests.train.tiny import changed

PLAIN = TrainConfig(model=Path("model"), data=Path("data.txt"), out=Path("out"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("adapter.kind", "hydra"),
        ("adapter.exit_layer", 0),
        ("adapter.max_depth", 0),
        ("adapter.max_depth", 64),
        ("adapter.max_depth", 128),
        ("checkpoint_every", -1),
        ("dtype", "float16"),
        ("eval.keep", "worst"),
        ("features.dtype", "int8"),
        ("features.folder", Path("with windows that move")),
        ("loss.soft", -1.0),
        ("loss.soft", 0.0),
        ("optim.betas", (0.9, 1.0)),
        ("optim.clip_norm", 0.0),
        ("optim.decay", "step"),
        ("optim.lr", 0.0),
        ("optim.lr", float("nan")),
        ("optim.min_lr_ratio", 1.5),
        ("optim.num_steps", 0),
        ("optim.warmup_steps", -1),
        ("optim.weight_decay", -0.1),
        ("seed", -1),
        ("windows.accumulation", 0),
        ("windows.batch_size", 0),
        ("windows.held_out_fraction", 0.0),
        ("windows.held_out_fraction", 1.0),
        ("windows.seq_len", 1),
    ],
)
def test_refused_by_name(field: str, value: Any) -> None:
    names = {"features.folder": r"windows\.moving", "loss.soft": "soft, kl, hard, tv"}
    name = names.get(field, field.rpartition(".")[2])
    with pytest.raises(ValueError, match=rf"^(adapter\.)?{name}: expected"):
        changed(PLAIN, {field: value})


def test_the_deepest_draft_there_is() -> None:
    """An adapter that could not be saved is not trained."""
    assert changed(PLAIN, {"adapter.max_depth": 63}).adapter.max_depth == 63
    kind = changed(PLAIN, {"adapter.kind": "medusa"})
    with pytest.raises(ValueError, match="max_depth: expected at most 63, got 64"):
        changed(kind, {"adapter.max_depth": 64})


@pytest.mark.parametrize("field", ["num_windows", "num_prompts", "prompt_len", "new_tokens"])
def test_evaluation_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected at least"):
        EvalConfig(**{field: 0})


@pytest.mark.parametrize("field", ["features.folder", "tracking.tensorboard"])
@pytest.mark.parametrize("path", ["out", "out/in/it", "out.run", "out.run/it", "x/../out/it"])
def test_nothing_is_kept_where_the_adapter_goes(field: str, path: str) -> None:
    plain = changed(PLAIN, {"windows.moving": False})
    with pytest.raises(ValueError, match=f"^{field}: expected a folder outside out and out.run"):
        changed(plain, {field: Path(path)})
    assert changed(plain, {field: Path("output")}) != plain


def test_rate() -> None:
    config = OptimConfig(num_steps=100, warmup_steps=10, lr=1.0)
    linear = [lr_at(config, step) for step in range(100)]
    assert linear[0] == pytest.approx(0.1)
    assert linear[50] == pytest.approx(0.5)
    assert linear[99] == pytest.approx(0.01)
    assert max(linear) == linear[9]
    cosine = replace(config, decay="cosine", min_lr_ratio=0.1)
    assert lr_at(cosine, 50) == pytest.approx(0.55)
    assert 0.1 < lr_at(cosine, 99) < 0.101


def test_a_resumed_run_may_differ_in_nothing_that_matters() -> None:
    moved = replace(PLAIN, out=Path("b"), resume=True, checkpoint_every=1, shard_target=True)
    moved = changed(moved, {"tracking.wandb": "kangaroos", "tracking.tensorboard": Path("t")})
    assert moved.trajectory() == PLAIN.trajectory()
    for changes in (
        {"optim.lr": 1e-3},
        {"seed": 1},
        {"optim.num_steps": 2000},
        {"data": Path("b.txt")},
        {"eval.every": 7},
        {"loss.tv": 0.5},
        {"windows.moving": False},
    ):
        assert changed(PLAIN, changes).trajectory() != PLAIN.trajectory()
