"""The training loop: steps, checkpoints, and the report at the end."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from time import perf_counter

import torch
from torch import Tensor, nn

from kangaroo.models.adapter_format import is_adapter
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
from kangaroo.train.config import LossConfig, OptimConfig, TrainConfig, lr_at, run_folder
from kangaroo.train.interrupt import DeferredInterrupt
from kangaroo.train.loss import vocabulary_loss
from kangaroo.train.parallel import Team, team
from kangaroo.train.progress import Evaluation, TrainProgress, TrainReport
from kangaroo.train.run import Run, prepare, with_features
from kangaroo.train.simulate import tune
from kangaroo.train.student import Student
from kangaroo.train.target import States, pick_device
from kangaroo.train.tracking import tracking
from kangaroo.train.whole import replace_file

CONFIDENCES = tuple(tenth / 10 for tenth in range(10))
REPORT = "report.json"


@dataclass
class Standing:
    """How far a run is: steps done, and the best adapter so far."""

    step: int = 0
    best: Best | None = None


def train_adapter(config: TrainConfig, on_progress: Callable[[TrainProgress], None]) -> TrainReport:
    """Train an adapter, choose its stopping rule, save it to `config.out` with metrics and report.

    Until then everything is kept in the folder "<out>.run". Ctrl-C, or a KeyboardInterrupt from
    `on_progress`, ends the run behind the current step with a checkpoint there. Of the processes of
    a run (`train.parallel`) the first alone writes and calls `on_progress`.

    Raises:
        ValueError: the config, data, target or checkpoint cannot be used; or an unfinished run is
            there and `config.resume` is false; or `config.out` is taken by what is no adapter.
        UnsupportedError: the target's family is not supported, or a package that `tracking` needs
            is not installed.
        FloatingPointError: the loss is no longer finite.
    """
    with team(pick_device(config.device)) as processes:
        return _train(config, on_progress, processes)


def _train(
    config: TrainConfig, on_progress: Callable[[TrainProgress], None], processes: Team
) -> TrainReport:
    folder, saved = run_folder(config.out), checked_folders(config)
    run, standing = prepare(config, processes), Standing()
    if saved is not None:
        saved.check_contents(run.contents)
    run = with_features(run)
    if saved is not None:
        run.student.module.load_state_dict(saved.adapter)
        run.optimizer.load_state_dict(saved.optimizer)
        standing = Standing(saved.step, saved.best)
    processes.wait()  # until all have looked at the folders
    with tracking(config, standing.step, processes) as track:
        if processes.writes:
            folder.mkdir(parents=True, exist_ok=True)
            trim_metrics(folder, standing.step)

        def tell(progress: TrainProgress) -> None:
            track(progress)
            on_progress(progress)

        started, first = perf_counter(), standing.step
        _loop(run, standing, tell)
        seconds = perf_counter() - started
    num_tokens = (standing.step - first) * config.num_tokens
    report = TrainReport(config.out, False, standing.step, seconds, num_tokens / max(seconds, 1e-9))
    return _finish(run, standing, report) if standing.step == config.optim.num_steps else report


def checked_folders(config: TrainConfig) -> Checkpoint | None:
    """The checkpoint that is to be resumed, if there is one.

    Raises:
        ValueError: "<out>.run" or `config.out` is taken, or the checkpoint cannot be used.
    """
    out, folder = config.out, run_folder(config.out)
    check_own(out)
    if not config.resume and folder.exists():
        raise ValueError(f"resume: {folder} holds an unfinished run; resume it, or remove it")
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not empty and not is_adapter(out):
        raise ValueError(f"out: {out} exists and holds no adapter; expected another folder")
    return load_checkpoint(folder, config.trajectory()) if config.resume else None


def _loop(run: Run, standing: Standing, on_progress: Callable[[TrainProgress], None]) -> None:
    """Steps until the last, or an interrupt; the last is always saved."""
    config, folder, every = run.config, run_folder(run.config.out), run.config.checkpoint_every
    stopped = standing.step == config.optim.num_steps
    with DeferredInterrupt() as interrupt:
        while not stopped:
            progress = take_step(run, standing)
            if run.team.writes:
                append_metrics(folder, progress.record())
                try:
                    on_progress(progress)
                except KeyboardInterrupt:
                    stopped = True
            stopped = run.team.any(stopped or interrupt.pending, run.rope.device)
            stopped |= standing.step == config.optim.num_steps
            if run.team.writes and (stopped or (every and standing.step % every == 0)):
                save_checkpoint(folder, _checkpoint(run, standing))


def take_step(run: Run, standing: Standing) -> TrainProgress:
    """The next optimiser step, and what is to be said about it."""
    config, step, started = run.config, standing.step, perf_counter()
    loss = accumulate_gradient(run, step)
    if not math.isfinite(loss):
        raise FloatingPointError(f"loss: expected a finite number, got {loss} in step {step + 1}")
    lr = apply_gradient(run.student.module, run.optimizer, config.optim, step)
    speed = config.num_tokens / (perf_counter() - started)
    standing.step += 1
    progress = TrainProgress(standing.step, config.optim.num_steps, loss, lr, speed)
    every = config.eval.every
    if not every or standing.step % every:
        return progress
    found = _evaluate(run, standing)
    return replace(progress, held_out=found.held_out, best=found.best)


def apply_gradient(
    module: nn.Module, optimizer: torch.optim.Optimizer, config: OptimConfig, step: int
) -> float:
    """Step `step` with the gradient that is there, clipped; it is gone then. The rate, which is
    `config`'s.
    """
    lr = lr_at(config, step)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    return lr


def accumulate_gradient(run: Run, step: int) -> float:
    """Gradient of the mean loss over all trained slots of the step's windows; that loss.

    The mean is over the whole step, so how its windows are cut into forward passes does not matter.
    """
    config, device = run.config, run.rope.device
    num_windows = config.num_windows
    windows = run.windows.sample(step * num_windows, num_windows)
    num_slots = int(windows.mask.sum())
    deltas = deltas_of(run.student, config.adapter.max_depth, config.seed, step)
    total, size = torch.zeros((), device=device), config.windows.batch_size
    for first in range(run.team.rank * size, num_windows, run.team.size * size):
        batch = windows[first : first + size]
        states, trained = run.states(batch), batch.mask.to(device)
        seen = states, trained, run.target.head, run.rope
        loss = drafting_loss(run.student, *seen, deltas=deltas, weights=config.loss)
        loss = loss / (num_slots * len(deltas))
        loss.backward()
        total += loss.detach()
    gradients = [p.grad for p in run.student.module.parameters() if p.grad is not None]
    run.team.add_up([total, *gradients])
    return total.item()


def drafting_loss(
    student: Student,
    states: States,
    trained: Tensor,
    head: Tensor,
    rope: Tensor,
    *,
    deltas: list[int],
    weights: LossConfig,
) -> Tensor:
    """Sum over the slots that are `trained` [B, T] and over `deltas`, [] float32; `head` [V, C] is
    the target's.
    """
    normed, total = states.normed[trained], torch.zeros((), device=rope.device)
    for delta, out in zip(deltas, student.hidden(states, rope, deltas), strict=True):
        own = student.head(delta, head)
        total = total + vocabulary_loss(out[trained], normed, head, weights, draft_head=own)
    return total


def deltas_of(student: Student, max_depth: int, seed: int, step: int) -> list[int]:
    """Distances of every query of the step to its newest verified slot: all of 1..max_depth, or one
    of them, uniformly.
    """
    if student.trains_all:
        return list(range(1, max_depth + 1))
    return [random.Random(f"{seed}/{step}/delta").randint(1, max_depth)]


def _evaluate(run: Run, standing: Standing) -> Evaluation:
    """Judge the adapter; the better of it and the best so far is kept."""
    config, depth = run.config, run.config.adapter.max_depth
    prompt_len = run.prompts.shape[1]
    trace = run.judge.trace(run.continued, prompt_len, config.eval.new_tokens, depth)
    table = tune(trace, run.student.cost(run.target_config), CONFIDENCES)
    best = max(table, key=lambda replay: replay.speedup)
    if standing.best is None or best.speedup > standing.best.replay.speedup:
        tensors = {
            name: p.detach().cpu().clone() for name, p in run.student.module.named_parameters()
        }
        standing.best = Best(standing.step, best, tensors)
    held_out = run.judge.teacher_forced(run.held_windows, range(1, depth + 1))
    return Evaluation(held_out, table, best)


def _checkpoint(run: Run, standing: Standing) -> Checkpoint:
    return Checkpoint(
        trajectory=run.config.trajectory(),
        contents=run.contents,
        step=standing.step,
        adapter=run.student.module.state_dict(),
        optimizer=run.optimizer.state_dict(),
        best=standing.best,
    )


def _finish(run: Run, standing: Standing, report: TrainReport) -> TrainReport:
    """Judge the adapter, give it its best stopping rule, and move everything to `out`."""
    config, folder = run.config, run_folder(run.config.out)
    found, kept = _evaluate(run, standing), standing.step
    if config.eval.keep == "best" and standing.best is not None and standing.best.step != kept:
        kept = standing.best.step
        run.student.module.load_state_dict(standing.best.adapter)
        found = _evaluate(run, standing)
    report = replace(report, completed=True, kept_step=kept, **vars(found))
    if not run.team.writes:
        return report
    run.student.save(config.out, config.model, found.best)
    replace_file(config.out / METRICS, (folder / METRICS).read_bytes())
    content = json.dumps(asdict(report), indent=2, default=str)
    replace_file(config.out / REPORT, (content + "\n").encode())
    remove_own(config.out)
    return report
