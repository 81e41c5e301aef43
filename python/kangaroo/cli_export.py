"""The command that hands a model to programs of other languages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kangaroo import cli_options as opt
from kangaroo import terminal
from kangaroo.cli_loading import load


def export(
    *,
    model: opt.Model = "tiny-py",
    adapter: opt.Adapter = None,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, or auto: the checkpoint's.")
    ] = "float32",
    out: Annotated[Path, typer.Option(help="File to write, FILE.safetensors.")],
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Write target and adapter to one file, for programs that embed libkangaroo."""
    from kangaroo.engine.generation import eos_list
    from kangaroo.models.adapter_io import kangaroos
    from kangaroo.models.export import save_export
    from kangaroo.models.fingerprint import fingerprint

    llm = load(model, adapter, dtype=dtype)
    exit_layer = 1 if llm.adapter is None else llm.adapter.config.exit_layer
    save_export(
        out,
        llm.model,
        None if llm.adapter is None else kangaroos(llm.adapter),
        fingerprint(llm.path, exit_layer),
        frozenset(eos_list(llm.generation_config.eos_token_id)),
    )
    if as_json:
        kind = None if llm.adapter is None else llm.adapter.config.kind
        terminal.write_json({"out": out, "adapter": kind, "num_bytes": out.stat().st_size})
    else:
        terminal.show(f"wrote {out}")
