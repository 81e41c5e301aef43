"""Prompts to measure on: from a file, or from the sources that tiny-py has never seen."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from kangaroo.zoo import corpus

# Starts that tiny-py knows how to continue, and that no other model minds.
BUILT_IN = (
    'def fibonacci(n):\n    """Return the n-th Fibonacci number."""\n',
    "import os\nimport sys\n\n\ndef main(argv=None):\n",
    "class Node:\n    def __init__(self, value, next=None):\n",
    'for name in sorted(names):\n    if not name.startswith("_"):\n',
)


def read_prompts(file: Path) -> list[str]:
    """The `prompt` of every line of a JSON-lines file; blank lines are skipped.

    Raises:
        ValueError: no such file, a line that is no object with a text `prompt`, or no line at all.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8: {error.reason}") from error
    prompts = [_prompt(f"{file}:{n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise ValueError(f'{file}: no prompts; expected one object a line: {{"prompt": "..."}}')
    return prompts


def held_out_prompts(
    tokenizer: PreTrainedTokenizerBase, num_prompts: int, prompt_len: int
) -> dict[str, list[int]]:
    """Token ids [prompt_len] of prompts from held-out files of the standard library, by file name.

    From each file the tokens behind the first line break past a quarter of its text, after the
    beginning-of-sequence token; files too short for that are left out. Files are taken evenly along
    the path order.

    Raises:
        ValueError: fewer than `num_prompts` files are long enough.
    """
    found: dict[str, list[int]] = {}
    for name, text in corpus.stdlib_files().items():
        if not corpus.is_held_out(name):
            continue
        start = text.find("\n", len(text) // 4) + 1
        ids: list[int] = tokenizer(text[start:])["input_ids"]
        if start and len(ids) >= prompt_len:
            found[name] = ids[:prompt_len]
    if num_prompts > len(found):
        raise ValueError(f"num_prompts: expected at most {len(found)}, got {num_prompts}")
    names = list(found)
    return {
        name: found[name]
        for name in (names[n * len(names) // num_prompts] for n in range(num_prompts))
    }


def _prompt(where: str, line: str) -> str:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: not valid JSON: {error}") from error
    prompt = content.get("prompt") if isinstance(content, dict) else None
    if not isinstance(prompt, str) or not prompt:
        raise ValueError(f'{where}: expected an object with a text: {{"prompt": "..."}}')
    return prompt
