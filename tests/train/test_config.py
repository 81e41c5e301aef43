"""A run's knobs: what cannot be meant is refused by name; the rate follows its schedule."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kangaroo.train.config import EvalConfig, TrainConfig, lr_at

PLAIN = TrainConfig(model=Path("model"), data=Path("data.txt"), out=Path("out"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "eagle"),
        ("dtype", "float16"),
        ("decay", "step"),
        ("exit_layer", 0),
        ("max_depth", 0),
        ("num_steps", 0),
        ("batch_size", 0),
        ("accumulation", 0),
        ("seq_len", 1),
        ("warmup_steps", -1),
        ("weight_decay", -0.1),
        ("seed", -1),
        ("checkpoint_every", -1),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("clip_norm", 0.0),
        ("min_lr_ratio", 1.5),
        ("held_out_fraction", 0.0),
        ("held_out_fraction", 1.0),
        ("betas", (0.9, 1.0)),
        ("max_depth", 128),
    ],
)
def test_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        replace(PLAIN, **{field: value})


@pytest.mark.parametrize("field", ["num_windows", "num_prompts", "prompt_len", "new_tokens"])
def test_evaluation_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected at least"):
        EvalConfig(**{field: 0})


def test_rate() -> None:
    config = replace(PLAIN, num_steps=100, warmup_steps=10, lr=1.0)
    linear = [lr_at(config, step) for step in range(100)]
    assert linear[0] == pytest.approx(0.1)
    assert linear[50] == pytest.approx(0.5)
    assert linear[99] == pytest.approx(0.01)
    assert max(linear) == linear[9]
    cosine = replace(config, decay="cosine", min_lr_ratio=0.1)
    assert lr_at(cosine, 50) == pytest.approx(0.55)
    assert 0.1 < lr_at(cosine, 99) < 0.101


def test_a_resumed_run_may_differ_in_nothing_that_matters() -> None:
    moved = replace(PLAIN, out=Path("b"), resume=True, checkpoint_every=1, eval=EvalConfig(every=1))
    assert moved.trajectory() == PLAIN.trajectory()
    for changes in ({"lr": 1e-3}, {"seed": 1}, {"num_steps": 2000}, {"data": Path("b.txt")}):
        assert replace(PLAIN, **changes).trajectory() != PLAIN.trajectory()
