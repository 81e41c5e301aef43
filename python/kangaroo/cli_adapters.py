"""Commands that make adapters without training: init-adapter, convert-adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from kangaroo import cli_options as opt
from kangaroo import terminal
from kangaroo.config import AdapterKind


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
