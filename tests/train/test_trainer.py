"""The run as a whole: its gradient, its adapter, and its life after an interrupt."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kangaroo.config import ADAPTER_KINDS, AdapterKind
from kangaroo.models.adapter import Adapter
from kangaroo.models.adapter_io import load_adapter
from kangaroo.models.fingerprint import fingerprint
from kangaroo.train import trainer
from kangaroo.train.checkpoint import METRICS, run_folder
from kangaroo.train.config import EvalConfig, TrainConfig
from kangaroo.train.evaluate import Judge
from kangaroo.train.progress import TrainProgress
from kangaroo.train.run import Run, prepare
from kangaroo.train.simulate import Replay
from kangaroo.train.student import AdapterStudent
from kangaroo.train.trainer import REPORT, accumulate_gradient, deltas_of, train_adapter
from tests.engines import CPU
from tests.train.tiny import changed, make_config, make_target, write_jsonl


def quiet(_progress: TrainProgress) -> None:
    pass


def interrupt_at(step: int) -> Any:
    def on_progress(progress: TrainProgress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return on_progress


def gradient(config: TrainConfig) -> tuple[dict[str, Tensor], float]:
    run = prepare(config)
    # A fresh adapter's output projection is so small that attention could be wrong unseen.
    adapter = run.student.module
    assert isinstance(adapter, Adapter)
    adapter.o.data.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(0))
    loss = accumulate_gradient(run, step=1)
    return {name: p.grad for name, p in adapter.named_parameters() if p.grad is not None}, loss


def saved(config: TrainConfig) -> Adapter:
    marks = fingerprint(config.model, config.adapter.exit_layer)
    return load_adapter(config.out, torch.float32, CPU, marks)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def assert_same_adapter(one: Adapter, other: Adapter) -> None:
    assert one.config == other.config
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_the_size_of_exit_states_does_not_matter(tmp_path: Path) -> None:
    """A target that computes the same on a residual stream 64 times as large: the same losses."""
    plain = make_target(tmp_path / "plain")
    large = shutil.copytree(plain, tmp_path / "large")
    weights = load_file(large / "model.safetensors")
    writers = ("embed_tokens.weight", "o_proj.weight", "down_proj.weight")
    weights = {k: 64 * w if k.endswith(writers) else w for k, w in weights.items()}
    save_file(weights, large / "model.safetensors", metadata={"format": "pt"})
    losses, outputs = [], []
    for path in (plain, large):
        config = make_config(tmp_path, path, {"optim.num_steps": 30, "eval.every": 0})
        config = replace(config, out=tmp_path / f"{path.name}-a")
        train_adapter(config, quiet)
        losses.append([m["loss"] for m in metrics(config.out)])
        outputs.append(saved(config).o)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[0][-1] < losses[0][0]
    assert (outputs[1] - 64 * outputs[0]).norm() < 0.01 * outputs[1].norm()


def test_accumulation_changes_no_gradient(target: Path, tmp_path: Path) -> None:
    """Windows with few and with many answers weigh by their answers, however they are batched."""
    lines = [
        {"input_ids": [1, *range(9, 9 + n)], "loss_mask": [0] * (n // 2 + 1) + [1] * (n - n // 2)}
        for n in range(3, 24)
    ]
    data = write_jsonl(tmp_path / "masked.jsonl", lines)
    changes = {"data": data, "windows.batch_size": 16, "eval.prompt_len": 2}
    config = make_config(tmp_path, target, changes)
    whole, loss = gradient(config)
    parts, loss_of_parts = gradient(
        changed(config, {"windows.batch_size": 4, "windows.accumulation": 4})
    )
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    assert (
        whole.keys()
        == parts.keys()
        == dict(prepare(config).student.module.named_parameters()).keys()
    )
    for name, grad in whole.items():
        error = (parts[name] - grad).abs().max()
        assert error <= 1e-4 * grad.abs().max(), name


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_an_interrupted_run_resumes_bit_for_bit(
    target: Path, tmp_path: Path, kind: AdapterKind
) -> None:
    config = make_config(tmp_path, target, {"adapter.kind": kind})
    report = train_adapter(config, quiet)
    assert report.completed
    assert report.num_steps == 6

    halves = replace(config, out=tmp_path / "halves", resume=True)
    report = train_adapter(halves, interrupt_at(3))
    assert not report.completed
    assert report.num_steps == 3
    assert not halves.out.exists()
    assert train_adapter(halves, quiet).completed
    assert_same_adapter(saved(config), saved(halves))
    for one, other in zip(metrics(config.out), metrics(halves.out), strict=True):
        assert {**one, "tokens_per_s": 0} == {**other, "tokens_per_s": 0}


def test_a_crash_loses_only_the_steps_behind_the_checkpoint(target: Path, tmp_path: Path) -> None:
    def crash(progress: TrainProgress) -> None:
        if progress.step == 5:
            raise OSError("power cut")

    config = make_config(tmp_path, target)
    with pytest.raises(OSError, match="power cut"):
        train_adapter(config, crash)
    assert [line["step"] for line in metrics(run_folder(config.out))] == [1, 2, 3, 4, 5]
    steps: list[int] = []
    train_adapter(replace(config, resume=True), lambda progress: steps.append(progress.step))
    assert steps == [5, 6]
    assert [line["step"] for line in metrics(config.out)] == [1, 2, 3, 4, 5, 6]
    straight = replace(config, out=tmp_path / "straight")
    train_adapter(straight, quiet)
    assert_same_adapter(saved(config), saved(straight))


def test_ctrl_c_ends_the_run_behind_the_step(target: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    config = make_config(tmp_path, target)

    def press(progress: TrainProgress) -> None:
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    report = train_adapter(config, press)
    assert (report.completed, report.num_steps) == (False, 3)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ValueError, match="resume: .* holds an unfinished run"):
        train_adapter(config, quiet)
    with pytest.raises(ValueError, match=r"optim\.lr: the run was started with"):
        train_adapter(changed(config, {"resume": True, "optim.lr": 1e-3}), quiet)


def test_what_a_run_leaves(target: Path, tmp_path: Path) -> None:
    config, seen = make_config(tmp_path, target), list[TrainProgress]()
    report = train_adapter(config, seen.append)
    adapter, best = saved(config), report.best
    assert best is not None
    assert (adapter.config.confidence, adapter.config.max_depth) == (
        best.confidence,
        best.max_depth,
    )
    assert best.speedup == max(row.speedup for row in report.table)
    assert len(report.table) == 10 * config.adapter.max_depth
    assert not run_folder(config.out).exists()
    lines = metrics(config.out)
    assert [line["step"] for line in lines] == [now.step for now in seen] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "lr", "tokens_per_s"} <= lines[0].keys()
    assert [line["step"] for line in lines if "held_out" in line] == [3, 6]
    assert report.held_out is not None
    assert report.held_out.deltas == (1, 2, 3)
    assert json.loads((config.out / REPORT).read_text())["best"]["confidence"] == best.confidence


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_training_makes_a_better_drafter(target: Path, tmp_path: Path, kind: AdapterKind) -> None:
    changes = {"adapter.kind": kind, "optim.num_steps": 60, "optim.lr": 2e-2, "eval.every": 0}
    changes |= {"windows.batch_size": 4, "checkpoint_every": 0}
    config = make_config(tmp_path, target, changes)
    run = prepare(config)
    fresh = run.judge.teacher_forced(run.held_windows, (1,)).agreement[0]
    losses: list[float] = []
    report = train_adapter(config, lambda progress: losses.append(progress.loss))
    assert sum(losses[-5:]) < sum(losses[:5])
    assert report.held_out is not None
    assert report.held_out.agreement[0] > fresh + 0.1
    judge = Judge(
        run.target, AdapterStudent(saved(config)), run.rope, batch_size=3
    )  # what was saved, not what was trained
    again = judge.teacher_forced(run.held_windows, report.held_out.deltas)
    assert again == report.held_out


def test_batches_of_evaluation_do_not_matter(target: Path, tmp_path: Path) -> None:
    run = prepare(make_config(tmp_path, target))
    one, many = (replace(run.judge, batch_size=size) for size in (1, 8))
    a, b = (judge.teacher_forced(run.held_windows, (1, 2)) for judge in (one, many))
    assert a.num_slots == b.num_slots == int(run.held_windows.mask.sum())
    assert a.agreement == b.agreement
    assert a.confidence == pytest.approx(b.confidence, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter.exit_layer": 4}, "exit_layer: expected 1 to 3, got 4"),
        ({"windows.seq_len": 257}, "seq_len: expected at most 256"),
        ({"eval": EvalConfig(prompt_len=200, new_tokens=57)}, r"eval\..*: expected at most 256"),
        ({"eval": EvalConfig(prompt_len=200, new_tokens=20)}, "prompt_len: no held-out window"),
        ({"model": Path("nowhere")}, "nowhere"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    target: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = make_config(tmp_path, target, changes)
    with pytest.raises(ValueError, match=message):
        train_adapter(config, quiet)
    assert not run_folder(config.out).exists()


def test_a_folder_that_holds_something_else_is_not_touched(target: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, target)
    config.out.mkdir()
    (config.out / "thesis.tex").touch()
    with pytest.raises(ValueError, match="out: .* holds no adapter"):
        train_adapter(config, quiet)


def test_every_delta_is_trained(target: Path, tmp_path: Path) -> None:
    student = prepare(make_config(tmp_path, target)).student
    drawn = [delta for step in range(200) for delta in deltas_of(student, 4, 0, step)]
    assert set(drawn) == {1, 2, 3, 4}
    assert min(drawn.count(delta) for delta in set(drawn)) > 25


@pytest.mark.parametrize(("keep", "kept_step"), [("best", 3), ("last", 6)])
def test_the_best_adapter_of_all_evaluations_is_kept(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, kept_step: int
) -> None:
    """Here each evaluation finds half of what the one before it did, but of the same adapter."""
    runs, found, weights = list[Run](), dict[bytes, float](), dict[int, Tensor]()

    def prepared(*args: Any) -> Run:
        runs.append(prepare(*args))
        return runs[0]

    def halving(*_: Any) -> tuple[Replay]:
        weight = runs[0].student.module.qkv.detach().numpy().tobytes()
        speedup = found.setdefault(weight, 0.5 ** len(found))
        return (Replay(0.5, 2, 1.5, 1.0, speedup),)

    def remember(progress: TrainProgress) -> None:
        weights[progress.step] = runs[0].student.module.qkv.detach().clone()

    monkeypatch.setattr(trainer, "prepare", prepared)
    monkeypatch.setattr(trainer, "tune", halving)
    config = make_config(tmp_path, target, {"eval.keep": keep})
    report = train_adapter(config, remember)
    assert report.kept_step == kept_step
    assert report.best is not None
    assert report.best.speedup == (1.0 if keep == "best" else 0.5)
    assert torch.equal(saved(config).qkv, weights[kept_step])
    assert not torch.equal(weights[3], weights[6])


def test_norms_do_not_decay(target: Path, tmp_path: Path) -> None:
    run = prepare(make_config(tmp_path, target, {"optim.weight_decay": 0.3}))
    for group in run.optimizer.param_groups:
        for p in group["params"]:
            assert group["weight_decay"] * group["lr_scale"] == (0.3 if p.ndim == 2 else 0.0)
    assert sum(len(group["params"]) for group in run.optimizer.param_groups) == 7
