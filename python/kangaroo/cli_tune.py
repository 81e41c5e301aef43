"""The command that finds the fastest rule of drafting for a machine and a user's prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kangaroo import cli_options as opt
from kangaroo import terminal
from kangaroo.cli_loading import load

if TYPE_CHECKING:
    from kangaroo.engine.llm import KangarooForCausalLM
    from kangaroo.evals.prompts import Prompt
    from kangaroo.evals.tuning import Settings, Tuning

ADAPTERS = typer.Option("--adapter", metavar="DIR", help="Folder of an adapter; give each to try.")
WRITE = typer.Option("--write", help="Deploy every adapter's fastest rule for chains with it.")
OUT = typer.Option(help="File to write the choice and all figures to, as JSON.")


def tune(
    *,
    prompts: Annotated[Path, typer.Option(help=opt.PROMPTS)],
    model: opt.Model = "tiny-py",
    adapters: Annotated[list[str], ADAPTERS],
    max_new_tokens: opt.MaxNewTokens = 64,
    max_depth: Annotated[int, typer.Option(help="Draft tokens in a row to try at most.")] = 8,
    write: Annotated[bool, WRITE] = False,
    out: Annotated[Path | None, OUT] = None,
    dtype: opt.Dtype = None,
    device: opt.Device = "cpu",
    backend: opt.Backend = "auto",
    threads: opt.Threads = None,
    as_json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Choose adapter, depth, confidence, chain or tree, copies: the fastest here, on these prompts.

    Measures what drafts and verification cost on this machine, and once how often deep drafts are
    right; says what every rule would do, then decodes with the best and without drafting. The exit
    code is 1 if ids differ.
    """
    from kangaroo.evals.prompts import read_prompts
    from kangaroo.evals.tuning import FORMAT, Settings
    from kangaroo.models.adapter_io import save_rule
    from kangaroo.models.files import check_free
    from kangaroo.reports import tuning_parts

    if out is not None:
        check_free(out, FORMAT, "result of tune")
    settings, read = Settings(max_new_tokens, max_depth), read_prompts(prompts)
    first = load(model, adapters[0], dtype=dtype, device=device, backend=backend)
    homes = _homes(first.path, adapters)
    tuning = _tune(first, homes, read, settings)
    if out is not None:
        out.write_text(json.dumps(tuning.as_dict(), indent=2) + "\n", encoding="utf-8")
    if write:
        for name, home in homes.items():
            rule = tuning.best_chain(name).options
            save_rule(home, rule["max_depth"], rule["confidence"])
    if as_json:
        terminal.write_json(tuning.as_dict())
    else:
        written = [*(homes.values() if write else ()), *([out] if out else ())]
        terminal.show(*tuning_parts(tuning), *(f"wrote {path}" for path in written))
    raise typer.Exit(0 if tuning.achieved["identical"] else terminal.FAILED)


def _homes(target: Path, adapters: list[str]) -> dict[str, Path]:
    """The adapters' folders by the names that were given.

    Raises:
        ValueError: a folder is not there, or given twice.
    """
    from kangaroo.engine.loading import adapter_path

    homes = {name: home for name in adapters if (home := adapter_path(target, name)) is not None}
    if len({home.resolve() for home in homes.values()}) < len(adapters):
        raise ValueError("adapter: expected each once, got one twice")
    return homes


def _tune(
    first: KangarooForCausalLM, homes: dict[str, Path], prompts: list[Prompt], settings: Settings
) -> Tuning:
    from kangaroo.engine.llm import KangarooForCausalLM
    from kangaroo.engine.loading import load_bound_adapter
    from kangaroo.evals import tuning
    from kangaroo.evals.prompts import encoded

    like, llms = first.model.weights.norm, {}
    for name, home in homes.items():
        adapter = load_bound_adapter(home, first.path, like.dtype, like.device)
        llms[name] = KangarooForCausalLM(first.model, adapter, first.path, first.generation_config)
    all_ids = encoded(prompts, first, settings.max_new_tokens)
    with terminal.progress() as bar:
        task = bar.add_task("", total=tuning.STEPS * len(llms) + 1)

        def on_step(name: str) -> None:
            bar.update(task, description=name, advance=1)

        return tuning.tune(llms, all_ids, settings, on_step)
