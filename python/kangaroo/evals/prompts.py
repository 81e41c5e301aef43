"""Prompts to measure on: from a file, or from the sources that tiny-py has never seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from kangaroo.engine.decode import check_context
from kangaroo.engine.llm import KangarooForCausalLM
from kangaroo.engine.state import Request
from kangaroo.train.chat import Message, check_unicode, encode_prompt
from kangaroo.train.documents import messages_of
from kangaroo.zoo import corpus
from kangaroo_kernels import UnsupportedError

EXPECTED = '{"prompt": "..."} or {"messages": [...]}'


@dataclass(frozen=True)
class Prompt:
    """What is to be continued.

    Attributes:
        text: as it is; or the last message.
        messages: a conversation, whose last answer is wanted; None: there is only `text`.
        where: file and line; "" where there is no file.
    """

    text: str
    messages: Sequence[Message] | None = None
    where: str = ""

    def ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Tokens: of a conversation in the model's chat template.

        Raises:
            ValueError: the model has no template, or it refuses the conversation.
        """
        if self.messages is None:
            return list(tokenizer(self.text)["input_ids"])
        if tokenizer.chat_template is None:
            raise ValueError("chat: expected a model with a chat template, got one without")
        return encode_prompt(list(self.messages), tokenizer)


# Starts that tiny-py knows how to continue, and that no other model minds.
BUILT_IN = (
    Prompt('def fibonacci(n):\n    """Return the n-th Fibonacci number."""\n'),
    Prompt("import os\nimport sys\n\n\ndef main(argv=None):\n"),
    Prompt("class Node:\n    def __init__(self, value, next=None):\n"),
    Prompt('for name in sorted(names):\n    if not name.startswith("_"):\n'),
)


def read_prompts(file: Path) -> list[Prompt]:
    """Of every line of a JSON-lines file its `prompt`, a text, or its `messages`, a conversation as
    in training, up to where the last answer begins; blank lines are skipped.

    Raises:
        ValueError: no such file, a line that has not one of them, or no line at all.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8: {error.reason}") from error
    prompts = [_prompt(f"{file}:{n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise ValueError(f"{file}: no prompts; expected one object a line: {EXPECTED}")
    return prompts


def encoded(
    prompts: Sequence[Prompt], llm: KangarooForCausalLM, max_new_tokens: int
) -> list[list[int]]:
    """Tokens of every prompt, each of which leaves room for a continuation.

    Raises:
        ValueError, UnsupportedError: as :meth:`Prompt.ids`, or a prompt and its continuation exceed
            the target's context; names the prompt.
    """
    all_ids = []
    for number, prompt in enumerate(prompts, 1):
        try:
            ids = prompt.ids(llm.tokenizer)
            check_context(llm.model.config, Request(ids, max_new_tokens))
        except (ValueError, UnsupportedError) as error:
            kind = UnsupportedError if isinstance(error, UnsupportedError) else ValueError
            raise kind(f"{prompt.where or f'prompt {number}'}: {error}") from error
        all_ids.append(ids)
    return all_ids


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


def _prompt(where: str, line: str) -> Prompt:
    try:
        content: Any = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: not valid JSON: {error}") from error
    fields = content if isinstance(content, dict) else {}
    try:
        messages, text = messages_of(fields), fields.get("prompt")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if messages is not None and "prompt" not in fields:
        while messages and messages[-1]["role"] == "assistant":
            messages.pop()
        if not messages:
            raise ValueError(f"{where}: messages: expected one that asks for an answer")
        return Prompt(messages[-1]["content"], messages, where)
    if messages is not None or not isinstance(text, str) or not text:
        raise ValueError(f"{where}: expected an object with one of {EXPECTED}")
    return Prompt(check_unicode(f"{where}: prompt", text), where=where)
