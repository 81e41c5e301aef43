"""A run's figures in TensorBoard or Weights & Biases, where `tracking` asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

from kangaroo.train.config import TrackingConfig, TrainConfig, flat
from kangaroo.train.parallel import Team
from kangaroo.train.progress import TrainProgress
from kangaroo_kernels import UnsupportedError


@contextmanager
def tracking(
    config: TrainConfig, step: int, team: Team
) -> Iterator[Callable[[TrainProgress], None]]:
    """What the process that writes calls behind every step of a run that has done `step` steps.

    Raises:
        UnsupportedError: a package that is asked for is not installed.
    """
    wanted = config.tracking if team.writes else TrackingConfig()
    sinks = list[Callable[[int, dict[str, float]], None]]()
    with ExitStack() as stack:
        if wanted.tensorboard is not None:
            board = _module("torch.utils.tensorboard", "tensorboard")
            writer = board.SummaryWriter(str(wanted.tensorboard), purge_step=step + 1)
            stack.callback(writer.close)
            sinks.append(lambda at, figures: _add_scalars(writer, at, figures))
        if wanted.wandb is not None:
            run = _module("wandb", "wandb").init(
                project=wanted.wandb,
                name=config.out.name,
                config={name: str(value) for name, value in flat(config).items()},
            )
            stack.callback(run.finish)
            sinks.append(lambda at, figures: run.log(figures, step=at))

        def track(progress: TrainProgress) -> None:
            for sink in sinks:
                sink(progress.step, figures_of(progress))

        yield track


def figures_of(progress: TrainProgress) -> dict[str, float]:
    """Its numbers by name: loss, lr, tokens_per_s and, where the step was evaluated, agreement by
    distance and what the deployed stopping rule gives.
    """
    figures = {name: getattr(progress, name) for name in ("loss", "lr", "tokens_per_s")}
    if progress.held_out is not None:
        pairs = zip(progress.held_out.deltas, progress.held_out.agreement, strict=True)
        figures |= {f"agreement/{delta}": value for delta, value in pairs}
    if progress.best is not None:
        figures |= {f"deployed/{name}": value for name, value in vars(progress.best).items()}
    return figures


def _add_scalars(writer: Any, step: int, figures: dict[str, float]) -> None:
    for name, value in figures.items():
        writer.add_scalar(name, value, step)


def _module(name: str, package: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UnsupportedError(
            f"tracking.{package}: needs the package {package}, which is not installed"
        ) from error
