"""The command that runs the engine's promises on a target and writes a certificate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kangaroo import cli_options as opt
from kangaroo import terminal
from kangaroo.cli_loading import load

if TYPE_CHECKING:
    from kangaroo.evals.subject import Subject

PROMPTS = typer.Option(help=opt.PROMPTS, show_default="four beginnings of Python")
DRAWS = typer.Option(help="Sampled continuations per prompt and way of decoding, for their law.")


def verify(
    *,
    model: opt.Model = "tiny-py",
    adapter: opt.Adapter = None,
    prompts: Annotated[Path | None, PROMPTS] = None,
    max_new_tokens: opt.MaxNewTokens = 64,
    draws: Annotated[int, DRAWS] = 300,
    seed: opt.Seed = 0,
    dtype: opt.Dtype = None,
    device: opt.Device = "cpu",
    backend: opt.Backend = "auto",
    threads: opt.Threads = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("certificate.json"),
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Try the promises of lossless decoding on a target and an adapter; write a certificate.

    Greedy ids beside transformers' generate (whose model is loaded too; in float64 where ids part),
    logits with drafting on and off, seeds, the law of what is sampled, and ends. The exit code is 1
    if a promise is broken.
    """
    from kangaroo.evals.certificate import FORMAT
    from kangaroo.evals.prompts import BUILT_IN, encoded, read_prompts
    from kangaroo.evals.subject import PASS, Settings, Subject
    from kangaroo.models.files import check_free
    from kangaroo.reports import certificate_parts

    check_free(out, FORMAT, "certificate")
    settings = Settings(max_new_tokens, seed, draws)
    read = BUILT_IN if prompts is None else read_prompts(prompts)
    llm = load(model, adapter, dtype=dtype, device=device, backend=backend)
    subject = Subject(llm, tuple(map(tuple, encoded(read, llm, max_new_tokens))), settings)
    certificate = _certify(subject, model, adapter)
    out.write_text(json.dumps(certificate, indent=2) + "\n", encoding="utf-8")
    if as_json:
        terminal.write_json(certificate)
    else:
        terminal.show(*certificate_parts(certificate), f"wrote {out}")
    raise typer.Exit(0 if certificate["verdict"] == PASS else terminal.FAILED)


def _certify(subject: Subject, model: str, adapter: str | None) -> dict[str, Any]:
    from kangaroo.evals.certificate import CHECKS, certify, identity

    if subject.llm.adapter is None:
        terminal.note("no adapter given: what is promised about drafting is not verified")
    with terminal.progress() as bar:
        task = bar.add_task("", total=len(CHECKS))

        def on_check(name: str) -> None:
            bar.update(task, description=name, completed=list(CHECKS).index(name))

        return certify(subject, identity(model, adapter), on_check)
