"""The commands that make training data: data prepare, data regenerate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kangaroo import cli_options as opt
from kangaroo import terminal
from kangaroo.cli_loading import load

data = typer.Typer(rich_markup_mode=None, help="Make data to train adapters on.")
DATA = typer.Option("--data", help="Texts or conversations, .txt or .jsonl; may be given again.")
MAX_LEN = typer.Option(
    help="Tokens of prompt and answer at most.", show_default="2048, or the target's context"
)
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


@data.command()
def regenerate(
    *,
    model: opt.Model = "tiny-py",
    adapter: opt.Adapter = None,
    file: Annotated[Path, typer.Option("--data", help="Conversations or texts, .jsonl or .txt.")],
    out: Annotated[Path, OUT],
    max_new_tokens: opt.MaxNewTokens = 512,
    max_len: Annotated[int | None, MAX_LEN] = None,
    prompt_len: Annotated[int, typer.Option(help="Tokens of a text that are continued.")] = 64,
    batch_size: Annotated[int, typer.Option(help="Sequences that are decoded together.")] = 8,
    temperature: Annotated[float, typer.Option(help="Above 0: draw tokens.")] = 0.0,
    seed: opt.Seed = 0,
    dtype: opt.Dtype = None,
    device: opt.Device = "cpu",
    backend: opt.Backend = "auto",
    threads: opt.Threads = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Let the target answer its training data itself: drafters learn best from what it writes.

    Every turn of the assistant is answered anew, behind the new answers to the turns in front; a
    text is continued. Started again after an interrupt, it goes on, to the same bytes.
    """
    from kangaroo.train.regenerate import RegenerateConfig
    from kangaroo.train.regenerate import regenerate as answer

    llm = load(model, adapter, dtype=dtype, device=device, backend=backend)
    longest = min(2048, llm.model.config.context_len) if max_len is None else max_len
    limits: dict[str, Any] = {"max_new_tokens": max_new_tokens, "max_len": longest}
    drawn: dict[str, Any] = {"temperature": temperature, "seed": seed}
    config = RegenerateConfig(
        file, out, **limits, prompt_len=prompt_len, batch_size=batch_size, **drawn
    )
    with terminal.progress() as bar:
        task = bar.add_task("answering", total=None)

        def on_progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        manifest = answer(llm, config, on_progress)
    if as_json:
        terminal.write_json({"out": out} | manifest)
        return
    for name, part in manifest["files"].items():
        terminal.show(
            f"{out / name}: {part['num_documents']} documents, {part['num_answer_tokens']} tokens "
            "of answers"
        )
    _tell_rejected(out, manifest)


def _tell_rejected(out: Path, manifest: dict[str, Any]) -> None:
    if num_rejected := manifest["num_rejected"]:
        terminal.note(f"rejected lines: {num_rejected}; {out / 'rejects.jsonl'} says why")
