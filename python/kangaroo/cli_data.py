"""The commands that make training data: data prepare, data regenerate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kangaroo import cli_options as opt
from kangaroo import terminal

data = typer.Typer(rich_markup_mode=None, help="Make data to train adapters on.")
DATA = typer.Option("--data", help="Texts or conversations, .txt or .jsonl; may be given again.")
OUT = typer.Option(help="Folder to write, which must not exist.")


@data.command()
def prepare(
    *,
    model: opt.ModelDir,
    files: Annotated[list[Path], DATA],
    out: Annotated[Path, OUT],
    held_out_fraction: Annotated[float, typer.Option(help="Of the documents.")] = 0.04,
    seq_len: Annotated[int, typer.Option(help="Tokens per window, to count windows by.")] = 256,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Tokenise and split texts and conversations, for train --data FOLDER.

    Lines that cannot be used are counted, and kept with file, line and reason in rejects.jsonl.
    """
    from kangaroo.train.prepare import prepare_data

    manifest = prepare_data(model, files, out, held_out_fraction, seq_len)
    if as_json:
        terminal.write_json({"out": out} | manifest)
        return
    for name, part in manifest["files"].items():
        terminal.show(
            f"{out / name}: {part['num_documents']} documents, {part['num_tokens']} tokens, "
            f"{part['num_answer_tokens']} of them answers, {part['num_windows']} windows"
        )
    _tell_rejected(out, manifest)


def _tell_rejected(out: Path, manifest: dict[str, Any]) -> None:
    if num_rejected := manifest["num_rejected"]:
        terminal.note(f"{num_rejected} lines rejected; {out / 'rejects.jsonl'} says why")
