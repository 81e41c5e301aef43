"""What a target is asked so that it writes its own training data, and what becomes of its answers.

A conversation's turns come one after the other: each prompt is the chat template of everything in
front, the target's own earlier answers included.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from transformers import PreTrainedTokenizerBase

from kangaroo.train.chat import Message, encode_prompt
from kangaroo.train.documents import DataError, Line, messages_of, record_of, text_of

Turns = Generator[list[int], list[int], None]  # yields the tokens of a prompt, is sent an answer's


def turns_of(line: Line, tokenizer: PreTrainedTokenizerBase, prompt_len: int) -> Turns:
    """The prompts of a line: in front of every turn of the assistant and behind a last one of the
    user; of plain text the first `prompt_len` tokens.

    Raises:
        ValueError: when a prompt is asked for: the line, or the conversation, has none.
    """
    record = record_of(line)
    if (messages := messages_of(record)) is not None:
        yield from _conversation(messages, tokenizer)
    elif "input_ids" in record:
        raise DataError("input_ids: expected text or messages; tokens cannot be answered again")
    else:
        yield list(tokenizer(text_of(record), verbose=False)["input_ids"])[:prompt_len]


def _conversation(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> Turns:
    told: list[Message] = []
    for message in messages:
        content = message["content"]
        if message["role"] == "assistant":
            answer = yield encode_prompt(told, tokenizer)
            content = str(tokenizer.decode(answer, skip_special_tokens=True))
        told.append({"role": message["role"], "content": content})
    if told[-1]["role"] == "user":
        yield encode_prompt(told, tokenizer)


def add_turn(rows: list[dict[str, list[int]]], prompt: list[int], answer: list[int]) -> None:
    """Put a turn into `rows` of {"input_ids", "loss_mask"}: behind the last one if the prompt
    begins with it, token by token, else as one more.
    """
    asked = [0] * len(prompt)
    if rows and prompt[: len(rows[-1]["input_ids"])] == rows[-1]["input_ids"]:
        before = rows.pop()["loss_mask"]
        asked = before + asked[len(before) :]
    rows.append({"input_ids": prompt + answer, "loss_mask": asked + [1] * len(answer)})
