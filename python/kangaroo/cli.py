"""The command line: options in, text, tables or JSON out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kangaroo import (
    cli_adapters,
    cli_data,
    cli_export,
    cli_train,
    cli_tune,
    cli_verify,
    cli_vocab,
    terminal,
)
from kangaroo import cli_options as opt
from kangaroo.cli_loading import load

if TYPE_CHECKING:
    from kangaroo.engine.llm import KangarooForCausalLM
    from kangaroo.evals.prompts import Prompt

# torch and transformers take seconds to import: commands import what they need.
app = typer.Typer(cls=terminal.Commands, rich_markup_mode=None, add_completion=False)
DEMO_PROMPT = '''class Stack:
    """A last-in, first-out container."""

    def __init__(self, items=None):
        self.items = list(items or [])

    def push(self, item):'''


@app.callback()
def kangaroo() -> None:
    """Lossless self-speculative decoding: the target's own output, faster."""


@app.command()
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="Text to continue; - reads it from standard input.")
    ] = None,
    *,
    prompt_file: Annotated[Path | None, typer.Option(help="Read the prompt from a file.")] = None,
    chat: opt.Chat = False,
    system: opt.System = None,
    model: opt.Model = "tiny-py",
    adapter: opt.Adapter = None,
    compare: opt.Compare = False,
    repeats: opt.Repeats = 3,
    max_new_tokens: opt.MaxNewTokens = 128,
    temperature: opt.Temperature = None,
    sample_top_k: opt.SampleTopK = None,
    top_p: opt.TopP = None,
    min_p: opt.MinP = None,
    seed: opt.SampleSeed = None,
    stop: opt.Stop = None,
    draft: opt.Draft = None,
    max_depth: opt.MaxDepth = None,
    confidence: opt.Confidence = None,
    top_k: opt.TopK = None,
    max_nodes: opt.MaxNodes = None,
    adaptive: opt.Adaptive = None,
    lookup: opt.Lookup = None,
    exit_layer: opt.ExitLayer = None,
    draft_head: opt.DraftHead = None,
    draft_vocab: opt.DraftVocab = None,
    dtype: opt.Dtype = None,
    device: opt.Device = "cpu",
    backend: opt.Backend = "auto",
    threads: opt.Threads = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Continue a prompt, greedily without --temperature; on a terminal accepted drafts are green.
    Without a prompt tiny-py goes on with a piece of Python. --compare: exit code 1 if ids differ.
    """
    text = _prompt(prompt, prompt_file, model)
    place: dict[str, Any] = {"dtype": dtype, "device": device, "backend": backend}
    llm = load(model, adapter, **place, draft_head=draft_head, draft_vocab=draft_vocab)
    drafting = {"draft": draft, "max_depth": max_depth, "confidence": confidence, "lookup": lookup}
    drafting |= {"draft_top_k": top_k, "max_nodes": max_nodes, "exit_layer": exit_layer}
    sampling = opt.sampling(temperature, seed, top_k=sample_top_k, top_p=top_p, min_p=min_p)
    ends = {"max_new_tokens": max_new_tokens, "stop_strings": stop or None}
    options = _options(llm, sampling, **ends, **drafting, adaptive=adaptive)
    ids = _prompt_ids(llm, text, chat, system)
    show = _generate_as_json if as_json else _stream
    return _compare(llm, ids, options, repeats, as_json) if compare else show(llm, ids, options)


@app.command()
def bench(
    *,
    prompts: Annotated[Path, typer.Option(help=opt.PROMPTS)],
    model: opt.Model = "tiny-py",
    adapter: opt.Adapter = None,
    repeats: opt.Repeats = 3,
    max_new_tokens: opt.MaxNewTokens = 128,
    temperature: opt.Temperature = None,
    sample_top_k: opt.SampleTopK = None,
    top_p: opt.TopP = None,
    min_p: opt.MinP = None,
    seed: opt.SampleSeed = None,
    stop: opt.Stop = None,
    draft: opt.Draft = None,
    max_depth: opt.MaxDepth = None,
    confidence: opt.Confidence = None,
    top_k: opt.TopK = None,
    max_nodes: opt.MaxNodes = None,
    adaptive: opt.Adaptive = None,
    lookup: opt.Lookup = None,
    exit_layer: opt.ExitLayer = None,
    draft_head: opt.DraftHead = None,
    draft_vocab: opt.DraftVocab = None,
    dtype: opt.Dtype = None,
    device: opt.Device = "cpu",
    backend: opt.Backend = "auto",
    threads: opt.Threads = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Speculative against autoregressive decoding, in turns; the exit code is 1 if ids differ.

    Greedy without --temperature; with it, both sides and all prompts have the same seed.
    """
    from kangaroo.evals.prompts import read_prompts

    read = read_prompts(prompts)
    place: dict[str, Any] = {"dtype": dtype, "device": device, "backend": backend}
    llm = load(model, adapter, **place, draft_head=draft_head, draft_vocab=draft_vocab)
    drafting = {"draft": draft, "max_depth": max_depth, "confidence": confidence, "lookup": lookup}
    drafting |= {"draft_top_k": top_k, "max_nodes": max_nodes, "exit_layer": exit_layer}
    sampling = opt.sampling(temperature, seed, top_k=sample_top_k, top_p=top_p, min_p=min_p)
    ends = {"max_new_tokens": max_new_tokens, "stop_strings": stop or None}
    options = _options(llm, sampling, **ends, **drafting, adaptive=adaptive)
    _bench(llm, read, options, repeats, as_json)


@app.command()
def env(
    *,
    model: opt.Model = "tiny-py",
    dtype: opt.Dtype = None,
    device: opt.Device = "cpu",
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Versions, hardware, which implementation serves every kernel here, and why others cannot."""
    from kangaroo.environment import describe
    from kangaroo.reports import env_parts

    report = describe(model, dtype, device)
    if as_json:
        terminal.write_json(report)
    else:
        terminal.show(*env_parts(report))


app.add_typer(cli_data.data, name="data")
app.command()(cli_train.train)
app.command()(cli_adapters.init_adapter)
app.command()(cli_adapters.convert_adapter)
app.command()(cli_vocab.draft_vocab)
app.command()(cli_export.export)
app.command()(cli_tune.tune)
app.command()(cli_verify.verify)


def main() -> None:
    """The entry point of `kangaroo`."""
    for standard_stream in (sys.stdout, sys.stderr):  # a locale of "C" must not stop a model's text
        if hasattr(standard_stream, "reconfigure"):
            standard_stream.reconfigure(errors="backslashreplace")
    app(sys.argv[1:] or ["--help"])


def _prompt(prompt: str | None, file: Path | None, model: str) -> str:
    """The text to continue.

    Raises:
        ValueError: none, two, or one that is not UTF-8.
    """
    if prompt is not None and file is not None:
        raise ValueError("prompt: expected an argument or --prompt-file, got both")
    if prompt == "-" or file is not None:
        content = sys.stdin.buffer.read() if file is None else file.read_bytes()
    elif prompt is not None:
        content = prompt.encode("utf-8", "surrogateescape")  # arguments under any locale
    elif model == "tiny-py":
        terminal.note("no prompt given: continuing a built-in one (- reads standard input)")
        return DEMO_PROMPT
    else:
        raise ValueError("prompt: expected a text, --prompt-file FILE, or - for standard input")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"prompt: not UTF-8: {error.reason} at byte {error.start}") from error


def _prompt_ids(llm: KangarooForCausalLM, text: str, chat: bool, system: str | None) -> list[int]:
    """Tokens of the prompt, as it is or in the model's chat template.

    Raises:
        ValueError: as :meth:`Prompt.ids`, or there is a system's message and no chat.
    """
    from kangaroo.evals.prompts import Prompt

    if system is not None and not chat:
        raise ValueError("system: has no effect without --chat")
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": text})
    return Prompt(text, messages if chat else None).ids(llm.tokenizer)


def _options(llm: KangarooForCausalLM, sampling: dict[str, Any], **given: Any) -> dict[str, Any]:
    """Options of `rounds`: those given, above plain decoding; a folder's idea of it is told."""
    from kangaroo.engine.generation import greedy_options

    plain = greedy_options(llm.generation_config)
    if unused := [name for name in plain if name not in sampling]:
        how = "sampling" if sampling else "greedy decoding"
        terminal.note(f"{how}: {', '.join(unused)} of generation_config.json not used")
    return plain | sampling | {k: v for k, v in given.items() if v is not None}


def _stream(llm: KangarooForCausalLM, ids: list[int], options: dict[str, Any]) -> None:
    from kangaroo.reports import summary_line

    rounds = llm.rounds(ids, **options)
    terminal.stream(llm, ids, rounds)
    seed = f", seed {options['seed']}" if "seed" in options else ""
    terminal.note(summary_line(rounds.speculation) + seed)


def _generate_as_json(llm: KangarooForCausalLM, ids: list[int], options: dict[str, Any]) -> None:
    from kangaroo.draft.head import describe
    from kangaroo.engine.detokenize import text_of
    from kangaroo.evals.paired import run_once

    run = run_once(llm, ids, **options)
    text = text_of(llm.tokenizer, ids, run.token_ids)
    told = {"text": text, "seed": options.get("seed"), "draft_head": describe(llm.head)}
    terminal.write_json(told | run.as_dict())


def _compare(
    llm: KangarooForCausalLM, ids: list[int], options: dict[str, Any], repeats: int, as_json: bool
) -> None:
    from kangaroo.evals import paired
    from kangaroo.reports import comparison_table

    paired.warm_up(llm, ids, **options)
    if not as_json:
        _stream(llm, ids, options)
    result = paired.compare(llm, ids, repeats, **options)
    if as_json:
        terminal.write_json(paired.as_dict(llm, result) | {"seed": options.get("seed")})
    else:
        terminal.show(comparison_table(result))
    raise typer.Exit(0 if result.identical else terminal.FAILED)


def _bench(
    llm: KangarooForCausalLM,
    prompts: list[Prompt],
    options: dict[str, Any],
    repeats: int,
    as_json: bool,
) -> None:
    from kangaroo.evals import paired
    from kangaroo.evals.prompts import encoded
    from kangaroo.reports import bench_table

    all_ids = encoded(prompts, llm, options["max_new_tokens"])
    paired.warm_up(llm, all_ids[0], **options)
    with terminal.progress() as bar:
        results = [
            paired.compare(llm, ids, repeats, **options)
            for ids in bar.track(all_ids, description="prompts")
        ]
    totals = paired.total(results)
    if as_json:
        each_prompt = [paired.as_dict(llm, each) for each in results]
        seeded = {"seed": options.get("seed")}
        terminal.write_json({"prompts": each_prompt, "total": totals} | seeded)
    else:
        texts = [prompt.text for prompt in prompts]
        terminal.show(bench_table(texts, results, totals))
    raise typer.Exit(0 if totals["identical"] else terminal.FAILED)


if __name__ == "__main__":
    main()
