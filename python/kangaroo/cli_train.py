"""`kangaroo train`: a config from a file, options and key=value; a run, or what it would be."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kangaroo import cli_options as opt
from kangaroo import terminal

if TYPE_CHECKING:
    from kangaroo.train.config import TrainConfig
    from kangaroo.train.progress import TrainProgress, TrainReport

Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Of the config, as in optim.lr=3e-4."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("-c", "--config", help="YAML; options and key=value go above it.")
]
Target = Annotated[Path | None, typer.Option(help="Hugging Face folder of the target.")]
Data = Annotated[Path | None, typer.Option(help=".txt or .jsonl, or a folder of `data prepare`.")]
Out = Annotated[Path | None, typer.Option(help="Folder to write the adapter to.")]
KIND_HELP = f"{opt.KIND_HELP[:-1]}; medusa or eagle: other drafters, to be compared with."
Kind = Annotated[str | None, typer.Option(help=KIND_HELP, show_default="deep_prefix")]
ExitLayer = Annotated[int | None, typer.Option(help=opt.EXIT_LAYER_HELP, show_default="2")]
Depth = Annotated[
    int | None, typer.Option(help="Draft tokens per round to train for.", show_default="6")
]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps.", show_default="1000")]
BatchSize = Annotated[int | None, typer.Option(help="Windows per forward pass.", show_default="16")]
SeqLen = Annotated[int | None, typer.Option(help="Tokens per window.", show_default="256")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate.", show_default="0.002")]
Seed = Annotated[int | None, typer.Option(help="Of everything random.", show_default="0")]
Dtype = Annotated[
    str | None,
    typer.Option(help="Of the target: auto, bfloat16 or float32.", show_default="auto"),
]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...", show_default="auto")
]
Resume = Annotated[
    bool | None, typer.Option("--resume", help="Continue an interrupted run.", show_default=False)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the whole config and what it means, and stop.")
]

JsonLines = Annotated[
    bool, typer.Option("--json-lines", help="As --json, behind an object for every step.")
]

# option -> key of the config, where they differ
KEYS = {
    "kind": "adapter.kind",
    "exit_layer": "adapter.exit_layer",
    "max_depth": "adapter.max_depth",
    "steps": "optim.num_steps",
    "lr": "optim.lr",
    "batch_size": "windows.batch_size",
    "seq_len": "windows.seq_len",
}


def train(
    settings: Settings = None,
    *,
    config_file: ConfigFile = None,
    model: Target = None,
    data: Data = None,
    out: Out = None,
    kind: Kind = None,
    exit_layer: ExitLayer = None,
    max_depth: Depth = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    seq_len: SeqLen = None,
    lr: Rate = None,
    seed: Seed = None,
    dtype: Dtype = None,
    device: Device = None,
    resume: Resume = None,
    dry_run: DryRun = False,
    threads: opt.Threads = None,
    as_json: opt.Json = False,
    json_lines: JsonLines = False,
    debug: opt.Debug = False,
) -> None:
    """Train an adapter for a frozen target. Ctrl-C leaves a checkpoint for --resume."""
    options: dict[str, Any] = {"model": model, "data": data, "out": out, "kind": kind}
    options |= {"exit_layer": exit_layer, "max_depth": max_depth, "steps": steps, "lr": lr}
    options |= {"batch_size": batch_size, "seq_len": seq_len, "seed": seed, "dtype": dtype}
    options |= {"device": device, "resume": resume}
    config = _config(config_file, options, settings or [])
    if dry_run:
        _tell(config, as_json or json_lines)
        return
    report = _train(config, json_lines)
    if report is None:
        return
    if as_json or json_lines:
        terminal.write_json(asdict(report))
    else:
        from kangaroo.reports import train_lines

        terminal.show(*train_lines(report))
    raise typer.Exit(0 if report.completed else terminal.INTERRUPTED)


def _config(file: Path | None, options: dict[str, Any], settings: list[str]) -> TrainConfig:
    from kangaroo.train.config_file import parse_setting, read_config

    given = [
        (KEYS.get(name, name), str(value) if isinstance(value, Path) else value)
        for name, value in options.items()
        if value is not None
    ]
    return read_config(file, [*given, *map(parse_setting, settings)])


def _tell(config: TrainConfig, as_json: bool) -> None:
    from kangaroo.reports import plan_lines
    from kangaroo.train.config_file import as_yaml
    from kangaroo.train.plan import plan

    planned = plan(config)
    if as_json:
        terminal.write_json({"config": asdict(config), "plan": asdict(planned)})
    else:
        terminal.show(as_yaml(config).rstrip(), *plan_lines(planned))


def _train(config: TrainConfig, json_lines: bool) -> TrainReport | None:
    """None: another process of the run tells how it went."""
    from kangaroo.train.parallel import team
    from kangaroo.train.target import pick_device
    from kangaroo.train.trainer import train_adapter

    with team(pick_device(config.device)) as processes:
        if not processes.writes:
            train_adapter(config, lambda _now: None)
            return None
        return _watched(config, json_lines)


def _watched(config: TrainConfig, json_lines: bool) -> TrainReport:
    from kangaroo.train.trainer import train_adapter

    with terminal.progress("loss {task.fields[loss]:.3f}") as bar:
        task = bar.add_task("training", total=config.optim.num_steps, loss=float("nan"))

        def on_progress(now: TrainProgress) -> None:
            bar.update(task, completed=now.step, loss=now.loss)
            if json_lines:
                terminal.write_json(now.record())

        return train_adapter(config, on_progress)
