"""Options that several commands share."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

DEBUG = "kangaroo.debug"  # where a context keeps whether tracebacks are wanted
EXIT_LAYER_HELP = "Layer the adapter leaves the target at."
KIND_HELP = "paper or deep_prefix."
PROMPTS = 'JSON lines, each {"prompt": "..."} or, for a chat template, {"messages": [...]}.'


def _keep_debug(context: typer.Context, wanted: bool) -> bool:
    context.meta[DEBUG] = wanted
    return wanted


def _set_threads(num_threads: int | None) -> int | None:
    if num_threads is not None:
        import torch

        torch.set_num_threads(num_threads)
    return num_threads


Model = Annotated[
    str, typer.Option(metavar="DIR", help="Hugging Face folder of the target, or tiny-py.")
]
ModelDir = Annotated[Path, typer.Option("--model", help="Hugging Face folder of the target.")]
Adapter = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Folder of the adapter; for tiny-py also paper or deep_prefix (default).",
    ),
]
DraftHead = Annotated[
    str | None,
    typer.Option(
        help="Draft from a copy of the head in int8 or float8.", show_default="the head itself"
    ),
]
DraftVocab = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Draft these tokens alone, of draft-vocab.", show_default="all"
    ),
]
Chat = Annotated[
    bool,
    typer.Option("--chat", help="The prompt is a user's message, for the model's chat template."),
]
System = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="Message of the system in front of a --chat.", show_default="none"
    ),
]
MaxNewTokens = Annotated[int, typer.Option(help="Tokens to generate at most.")]
Draft = Annotated[
    str | None, typer.Option(help="What to draft: off, chain or tree.", show_default="chain")
]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        help="Tokens drafted behind one of a tree at most; for sampling see --sample-top-k.",
        show_default="10",
    ),
]
MaxNodes = Annotated[
    int | None,
    typer.Option(help="Nodes of a tree at most, the root included.", show_default="16"),
]
Temperature = Annotated[
    float | None,
    typer.Option(help="Above 0: draw tokens, at this temperature.", show_default="0, greedy"),
]
SampleTopK = Annotated[
    int | None,
    typer.Option(
        "--sample-top-k",
        help="Draw from this many of the most probable tokens; 0: from all.",
        show_default="the folder's, or 50",
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Draw from the most probable tokens of this much in all."),
]
MinP = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Draw from tokens this much as probable as the best."),
]
SampleSeed = Annotated[
    int | None,
    typer.Option("--seed", help="Of all that is drawn.", show_default="a fresh one, which is told"),
]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", help="End behind this text; may be given again.")
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Decode without drafting too: are the ids the same, and how much faster was it?",
    ),
]
MaxDepth = Annotated[
    int | None,
    typer.Option(
        help="Draft tokens in a row at most; 0: no drafting.", show_default="the adapter's"
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        help="Draft nothing behind a token less probable than this.",
        show_default="the adapter's, 0.4 for trees",
    ),
]
Adaptive = Annotated[
    bool | None,
    typer.Option(
        "--adaptive/--no-adaptive",
        help="Draft less, or nothing for a while, where it does not pay.",
        show_default="adaptive",
    ),
]
Lookup = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Where this many tokens stand in the text before, draft what followed them there.",
        show_default="0: never",
    ),
]
ExitLayer = Annotated[
    int | None,
    typer.Option(help=EXIT_LAYER_HELP, show_default="the adapter's"),
]
NewExitLayer = Annotated[int, typer.Option("--exit-layer", help=EXIT_LAYER_HELP)]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16, float16, or auto: the checkpoint's.",
        show_default="float32 on the CPU, elsewhere auto",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Backend = Annotated[str, typer.Option(help="Kernels: auto, reference, native, triton or cuda.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads.", show_default="torch's choice", callback=_set_threads),
]
Repeats = Annotated[int, typer.Option(min=1, help="Paired runs per prompt.")]
Kind = Annotated[str, typer.Option(help=KIND_HELP)]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Out = Annotated[Path, typer.Option(help="Folder to write the adapter to.")]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output, nothing else there.")
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show the traceback of an error.", is_eager=True, callback=_keep_debug
    ),
]


def sampling(temperature: float | None, seed: int | None, **shape: Any) -> dict[str, Any]:
    """Options of `rounds` that draw tokens; {} decodes greedily.

    Raises:
        ValueError: a temperature below 0, or an option that only sampling knows.
    """
    given = {name: value for name, value in shape.items() if value is not None}
    given |= {} if seed is None else {"seed": seed}
    if temperature is not None and temperature < 0:
        raise ValueError(f"temperature: expected at least 0, got {temperature}")
    if temperature:
        return {"do_sample": True, "temperature": temperature, "seed": secrets.randbits(32)} | given
    if given:
        name, value = next(iter(given.items()))
        flag = {"top_k": "sample_top_k"}.get(name, name)
        raise ValueError(
            f"{flag}={value}: has no effect on greedy decoding; give --temperature above 0, or "
            "leave it out"
        )
    return {}
