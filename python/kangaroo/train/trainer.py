"""The training loop: steps, checkpoints, and the report at the end."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from time import perf_counter

import torch
from torch import nn

from kangaroo.costs import Cost
from kangaroo.models.adapter_format import is_adapter
from kangaroo.models.adapter_io import save_adapter
from kangaroo.models.fingerprint import fingerprint
from kangaroo.train.checkpoint import (
    METRICS,
    Checkpoint,
    append_metrics,
    load_checkpoint,
    run_folder,
    save_checkpoint,
    trim_metrics,
)
from kangaroo.train.config import TrainConfig, lr_at
from kangaroo.train.evaluate import Agreement
from kangaroo.train.forward import draft_hidden, full_sequence
from kangaroo.train.interrupt import DeferredInterrupt
from kangaroo.train.loss import soft_cross_entropy
from kangaroo.train.progress import TrainProgress, TrainReport
from kangaroo.train.run import Run, prepare
from kangaroo.train.simulate import tune

CONFIDENCES = tuple(tenth / 10 for tenth in range(10))
REPORT = "report.json"


def train_adapter(config: TrainConfig, on_progress: Callable[[TrainProgress], None]) -> TrainReport:
    """Train an adapter, choose its stopping rule, save it to `config.out` with metrics and report.

    Until then everything is kept in the folder "<out>.run". Ctrl-C, or a KeyboardInterrupt from
    `on_progress`, ends the run behind the current step with a checkpoint there.

    Raises:
        ValueError: the config, data, target or checkpoint cannot be used; or an unfinished run is
            there and `config.resume` is false; or `config.out` is taken by what is no adapter.
        UnsupportedError: the target's family is not supported.
        FloatingPointError: the loss is no longer finite.
    """
    folder = run_folder(config.out)
    saved = load_checkpoint(folder, config.trajectory()) if config.resume else None
    if not config.resume and folder.exists():
        raise ValueError(f"resume: {folder} holds an unfinished run; resume it, or remove it")
    if config.out.exists() and any(config.out.iterdir()) and not is_adapter(config.out):
        raise ValueError(f"out: {config.out} exists and holds no adapter; expected another folder")
    run = prepare(config)
    step = 0
    if saved is not None:
        run.adapter.load_state_dict(saved.adapter)
        run.optimizer.load_state_dict(saved.optimizer)
        step = saved.step
    folder.mkdir(parents=True, exist_ok=True)
    trim_metrics(folder, step)
    started, first = perf_counter(), step
    step = _loop(run, step, on_progress)
    seconds = perf_counter() - started
    num_tokens = (step - first) * config.batch_size * config.accumulation * config.seq_len
    report = TrainReport(config.out, False, step, seconds, num_tokens / max(seconds, 1e-9))
    return _finish(run, report) if step == config.num_steps else report


def _loop(run: Run, step: int, on_progress: Callable[[TrainProgress], None]) -> int:
    """Steps until the last, or an interrupt; returns the number of steps done."""
    config, folder = run.config, run_folder(run.config.out)
    saved = step
    with DeferredInterrupt() as interrupt:
        while step < config.num_steps and not interrupt.pending:
            progress = _step(run, step)
            step += 1
            append_metrics(folder, {k: v for k, v in asdict(progress).items() if v is not None})
            try:
                on_progress(progress)
            except KeyboardInterrupt:
                break
            if config.checkpoint_every and step % config.checkpoint_every == 0:
                save_checkpoint(folder, _checkpoint(run, step))
                saved = step
        if saved != step:
            save_checkpoint(folder, _checkpoint(run, step))
    return step


def _step(run: Run, step: int) -> TrainProgress:
    """Optimiser step number `step`, from 0, and what is to be said about it."""
    config, started = run.config, perf_counter()
    lr = lr_at(config, step)
    for group in run.optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    loss = accumulate_gradient(run, step)
    if not torch.isfinite(torch.tensor(loss)):
        raise FloatingPointError(f"loss: expected a finite number, got {loss} in step {step + 1}")
    nn.utils.clip_grad_norm_(run.adapter.parameters(), config.clip_norm)
    run.optimizer.step()
    run.optimizer.zero_grad()
    num_tokens = config.batch_size * config.accumulation * config.seq_len
    speed = num_tokens / (perf_counter() - started)
    done, every = step + 1, config.eval.every
    judged = every and done % every == 0
    held_out = held_out_agreement(run, sorted({1, config.max_depth})) if judged else None
    return TrainProgress(done, config.num_steps, loss, lr, speed, held_out)


def accumulate_gradient(run: Run, step: int) -> float:
    """Gradient of the mean loss over all trained slots of the step's windows; that loss, in nats.

    The mean is over the whole step, so how its windows are cut into forward passes does not matter.
    """
    config, device = run.config, run.rope.device
    num_windows = config.batch_size * config.accumulation
    windows = run.windows.sample(step * num_windows, num_windows)
    num_slots = int(windows.mask.sum())
    delta = delta_of(config, step)
    total = torch.zeros((), device=device)
    for first in range(0, num_windows, config.batch_size):
        batch = windows[first : first + config.batch_size]
        states = run.target.states(batch.ids, batch.positions)
        trained, rows = batch.mask.to(device), (run.adapter, states.exit, states.last, run.rope)
        out = full_sequence(*rows, delta=delta, positions=states.positions)
        draft = draft_hidden(run.adapter, out[trained])
        loss = soft_cross_entropy(draft, states.normed[trained], run.target.head) / num_slots
        loss.backward()
        total += loss.detach()
    return total.item()


def delta_of(config: TrainConfig, step: int) -> int:
    """Distance of every query of the step to its newest verified slot: uniform in 1..max_depth."""
    return random.Random(f"{config.seed}/{step}/delta").randint(1, config.max_depth)


def held_out_agreement(run: Run, deltas: Sequence[int]) -> Agreement:
    """Teacher-forced scores of the held-out windows."""
    return run.judge.teacher_forced(run.held_windows, deltas)


def _checkpoint(run: Run, step: int) -> Checkpoint:
    return Checkpoint(
        trajectory=run.config.trajectory(),
        step=step,
        adapter=run.adapter.state_dict(),
        optimizer=run.optimizer.state_dict(),
    )


def _finish(run: Run, report: TrainReport) -> TrainReport:
    """Judge the adapter, give it its best stopping rule, and move everything to `out`."""
    config, folder = run.config, run_folder(run.config.out)
    trace = run.judge.greedy_trace(run.prompts, config.eval.new_tokens, config.max_depth)
    table = tune(trace, Cost.of(run.target_config, run.adapter.config), CONFIDENCES)
    best = max(table, key=lambda replay: replay.speedup)
    held_out = held_out_agreement(run, range(1, config.max_depth + 1))
    report = replace(report, completed=True, held_out=held_out, table=table, best=best)
    run.adapter.config = replace(
        run.adapter.config, confidence=best.confidence, max_depth=best.max_depth
    )
    marks = fingerprint(config.model, config.exit_layer)
    save_adapter(config.out, run.adapter, run.target_config, marks)
    (folder / METRICS).replace(config.out / METRICS)
    content = json.dumps(asdict(report), indent=2, default=str)
    (config.out / REPORT).write_text(content + "\n", encoding="utf-8")
    shutil.rmtree(folder)
    return report
