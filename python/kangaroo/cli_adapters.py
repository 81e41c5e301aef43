"""Commands that make adapters: train, init-adapter, convert-adapter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from kangaroo import cli_options as opt
from kangaroo import terminal
from kangaroo.config import AdapterKind

if TYPE_CHECKING:
    from kangaroo.train.config import TrainConfig
    from kangaroo.train.progress import TrainProgress, TrainReport


def train(
    *,
    model: opt.ModelDir,
    data: Annotated[Path, typer.Option(help="Texts or conversations, .txt or .jsonl.")],
    out: opt.Out,
    kind: opt.Kind = "deep_prefix",
    exit_layer: opt.NewExitLayer = 2,
    max_depth: Annotated[int, typer.Option(help="Draft tokens per round to train for.")] = 6,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 1000,
    batch_size: Annotated[int, typer.Option(help="Windows per forward pass.")] = 16,
    seq_len: Annotated[int, typer.Option(help="Tokens per window.")] = 256,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seed: opt.Seed = 0,
    dtype: Annotated[str, typer.Option(help="Of the target: auto, bfloat16 or float32.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    threads: opt.Threads = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Train an adapter for a frozen target. Ctrl-C leaves a checkpoint for --resume."""
    from kangaroo.reports import train_lines
    from kangaroo.train.config import TrainConfig

    run: dict[str, Any] = {"model": model, "data": data, "out": out, "resume": resume}
    adapter: dict[str, Any] = {"kind": kind, "exit_layer": exit_layer, "max_depth": max_depth}
    steps_: dict[str, Any] = {"num_steps": steps, "batch_size": batch_size, "seq_len": seq_len}
    numbers: dict[str, Any] = {"lr": lr, "seed": seed, "dtype": dtype, "device": device}
    report = _train(TrainConfig(**run, **adapter, **steps_, **numbers))
    if as_json:
        terminal.write_json(asdict(report))
    else:
        terminal.show(*train_lines(report))
    raise typer.Exit(0 if report.completed else terminal.INTERRUPTED)


def _train(config: TrainConfig) -> TrainReport:
    from kangaroo.train.trainer import train_adapter

    with terminal.progress("loss {task.fields[loss]:.3f}") as bar:
        task = bar.add_task("training", total=config.num_steps, loss=float("nan"))

        def on_progress(now: TrainProgress) -> None:
            bar.update(task, completed=now.step, loss=now.loss)

        return train_adapter(config, on_progress)


def init_adapter(
    *,
    model: opt.ModelDir,
    exit_layer: opt.NewExitLayer,
    out: opt.Out,
    kind: opt.Kind = "deep_prefix",
    seed: opt.Seed = 0,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Write a fresh, untrained adapter."""
    from kangaroo.models import adapter_io

    adapter_io.init_adapter(model, exit_layer, out, cast(AdapterKind, kind), seed)
    _written(out, as_json)


def convert_adapter(
    source: Annotated[
        Path, typer.Argument(help="Folder of an adapter as the paper's authors publish it.")
    ],
    *,
    model: opt.ModelDir,
    exit_layer: opt.NewExitLayer,
    out: opt.Out,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Convert a published adapter for the target it was made for."""
    from kangaroo.models import adapter_io

    adapter_io.convert_adapter(source, model, exit_layer, out)
    _written(out, as_json)


def _written(out: Path, as_json: bool) -> None:
    if as_json:
        from kangaroo.models.files import read_json

        terminal.write_json({"out": out, "adapter": read_json(out / "config.json")["adapter"]})
    else:
        terminal.show(f"wrote {out}")
