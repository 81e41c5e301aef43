"""How the command line meets its terminal: errors in one line, JSON, progress, streaming."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.color import ColorSystem
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.style import Style
from typer.core import TyperGroup

from kangaroo.cli_options import DEBUG

if TYPE_CHECKING:
    from kangaroo.engine.llm import KangarooForCausalLM
    from kangaroo.engine.stats import Rounds

FAILED, MISUSED, INTERRUPTED = 1, 2, 130  # exit codes
PROMPT, ACCEPTED, BONUS = Style(dim=True), Style(color="green"), Style()
# Models, prompts and paths may hold escape sequences, which a terminal must not obey: of control
# characters (C0, DEL, C1) it gets line breaks and tabs alone.
OBEYED = dict.fromkeys([*(set(range(0x20)) - set(b"\n\t")), *range(0x7F, 0xA0)])


class Commands(TyperGroup):
    """Commands whose errors are one line on standard error, and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run, and exit: 0, 1 (a result is not as it must be), 2 (misused) or 130 (interrupted)."""
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except Exception as error:
            if not _is_usage(error):
                raise  # with --debug
            code = _report(error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run one command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise  # the reader has seen enough: typer ends quietly
        except Exception as error:
            if ctx.meta.get(DEBUG, False):
                raise
            raise typer.Exit(_report(error)) from None


def _report(error: Exception) -> int:
    """Say in one line what is wrong; returns the exit code."""
    if _is_usage(error):
        note(f"error: {_one_line(error.format_message())}")  # type: ignore[attr-defined]
        return MISUSED
    from kangaroo_kernels import UnsupportedError  # not earlier: it takes torch along

    if isinstance(error, ValueError | UnsupportedError | OSError):
        note(f"error: {_one_line(str(error))}")
        return MISUSED
    note(f"error: {type(error).__name__}: {_one_line(str(error))} (--debug shows where)")
    return FAILED


def _is_usage(error: Exception) -> bool:
    """An error of the command line's own syntax: typer has changed their base class over time."""
    return hasattr(error, "format_message")


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _Console(Console):
    """Writes text as it is: no markup, no emoji codes, nothing that a terminal would obey."""

    def __init__(self, *, stderr: bool = False):
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of what is shown; only rich's own control segments control."""
        obeys = self.is_terminal
        for segment in super().render(renderable, options):
            if obeys and not segment.control:
                segment = Segment(segment.text.translate(OBEYED), segment.style)
            yield segment


def show(*parts: RenderableType) -> None:
    """Tables and lines on standard output."""
    console = _Console()
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))


def note(message: str) -> None:
    """One line on standard error."""
    _Console(stderr=True).print(message, soft_wrap=True)


def write_json(content: dict[str, Any]) -> None:
    """One line, ASCII, so that no locale can spoil it."""
    typer.echo(json.dumps(content, default=str))


def progress(*columns: str, num_bytes: bool = False) -> Progress:
    """A bar on standard error, if that is a terminal; one of bytes goes when it is done."""
    console = _Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn() if num_bytes else MofNCompleteColumn(),
        TimeRemainingColumn(),
        *columns,
        console=console,
        transient=num_bytes,
        disable=not console.is_terminal,
    )


def stream(llm: KangarooForCausalLM, prompt: Sequence[int], rounds: Rounds) -> None:
    """Write text as it is decoded; a terminal gets prompt and colours too."""
    from kangaroo.engine.detokenize import Detokenizer

    write = _writer()
    write(str(llm.tokenizer.decode(list(prompt), skip_special_tokens=True)), PROMPT)
    pieces = Detokenizer(llm.tokenizer, prompt)
    for latest in rounds:
        for place, token in enumerate(latest.tokens):
            write(pieces.add(token), ACCEPTED if place < latest.num_accepted else BONUS)
    write(pieces.end() + "\n", BONUS)


def _writer() -> Callable[[str, Style], None]:
    console = _Console()
    coloured = console.color_system is not None and not console.no_color

    def plain(text: str, style: Style) -> None:
        if style is not PROMPT:  # into a file or a pipe goes what is new, and every byte of it
            typer.echo(text, nl=False)

    def styled(text: str, style: Style) -> None:
        system = ColorSystem.STANDARD if coloured else None
        written = style.render(text.translate(OBEYED), color_system=system)
        typer.echo(written, nl=False, color=True)

    return styled if console.is_terminal else plain
