"""Conversations: the model's own chat template, and exactly which tokens are answers."""

from __future__ import annotations

from itertools import count
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
}
Message = dict[str, str]
Span = tuple[int, int]  # characters [start, stop) of a text


def parse_messages(raw: Any) -> list[Message]:
    """Messages {"role", "content"} or {"from", "value"} -> {"role", "content"}, usual role names.

    Raises:
        ValueError: names the message and the field.
    """
    if not isinstance(raw, list) or not raw:
        raise ValueError("expected a list of at least one message")
    messages = []
    for number, message in enumerate(raw):
        fields = message if isinstance(message, dict) else {}
        role = fields.get("role", fields.get("from"))
        content = fields.get("content", fields.get("value"))
        if not isinstance(role, str) or role not in _ROLES:
            raise ValueError(f"[{number}].role: expected one of {sorted(_ROLES)}, got {role!r}")
        if calls := fields.get("tool_calls"):
            raise ValueError(f"[{number}].tool_calls: expected none, got {calls!r}")
        if not isinstance(content, str):
            raise ValueError(f"[{number}].content: expected a string, got {content!r}")
        check_unicode(f"[{number}].content", content)
        messages.append({"role": _ROLES[role], "content": content})
    return messages


def check_unicode(name: str, text: str) -> str:
    """`text`, which JSON may have given half a character of.

    Raises:
        ValueError: it has; begins with `name`.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: expected whole characters, got half of a pair") from error
    return text


def encode_prompt(messages: list[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of a conversation up to where the assistant's next answer begins.

    Raises:
        ValueError: the chat template refuses the conversation.
    """
    if tokenizer.chat_template is None:
        text = _concatenate(messages, tokenizer)[0] + "assistant:"
        return list(tokenizer(text, verbose=False)["input_ids"])
    text = _templated(messages, tokenizer, open_turn=True)
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def encode_conversation(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[bool]]:
    """Tokens of a conversation, and which are answers: the assistant's text and what ends its turn.

    Uses the tokenizer's chat template; without one, "role: content" lines and the end-of-sequence
    token. A token that straddles the first character of an answer belongs to it.

    Raises:
        ValueError: the chat template refuses the conversation, or an answer cannot be found in
            what it makes of it.
    """
    templated = tokenizer.chat_template is not None
    text, spans = (_render if templated else _concatenate)(messages, tokenizer)
    # A template writes its special tokens itself.
    encoding = tokenizer(
        text, add_special_tokens=not templated, return_offsets_mapping=True, verbose=False
    )
    ids = list(encoding["input_ids"])
    answer = [
        any(start < span_stop and stop > span_start for span_start, span_stop in spans)
        for start, stop in encoding["offset_mapping"]
    ]
    if not templated and tokenizer.eos_token_id is not None and ids[-1] != tokenizer.eos_token_id:
        ids.append(tokenizer.eos_token_id)
        answer.append(messages[-1]["role"] == "assistant")
    return ids, answer


def _concatenate(
    messages: list[Message], _tokenizer: PreTrainedTokenizerBase
) -> tuple[str, list[Span]]:
    text, spans = "", []
    for message in messages:
        text += f"{message['role']}: "
        start = len(text)
        text += message["content"] + "\n"
        if message["role"] == "assistant":
            spans.append((start, len(text)))
    return text, spans


def _render(messages: list[Message], tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[Span]]:
    """The conversation by the template, and its answers' characters, end-of-turn marks included.

    What follows an answer is seen with another text in its place: the answer itself may occur
    anywhere, or be empty.
    """
    text, spans = _templated(messages, tokenizer), []
    other = next(word for n in count() if (word := f"answer{n}") not in text)
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = _templated(messages[:number], tokenizer, open_turn=True)
        asked, exchanged = messages[:number], {**message, "content": other}
        *_, rest = _templated([*asked, exchanged, *messages[number + 1 :]], tokenizer).split(other)
        *_, end_mark = _templated([*asked, exchanged], tokenizer).split(other)
        start, stop = len(prompt), len(text) - len(rest)
        kept = text.startswith(prompt) and text.endswith(rest) and start <= stop
        if not kept or not text[start:stop].rstrip().endswith(message["content"].strip()):
            raise ValueError(f"[{number}].content: the chat template does not keep it in its place")
        # Some templates write the last turn differently, so the end is where this text ends.
        if text.startswith(end_mark, stop):
            stop += len(end_mark)
        spans.append((start, stop))
    return text, spans


def _templated(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, *, open_turn: bool = False
) -> str:
    if not messages:
        raise ValueError("[0].role: expected a message in front of the first answer")
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=open_turn
        )
    except TemplateError as error:
        raise ValueError(f"the chat template refuses it: {error}") from error
    assert isinstance(text, str)
    return text
