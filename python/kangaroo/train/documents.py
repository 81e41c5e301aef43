"""Training documents from .txt and .jsonl files: tokens, and which of them are answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kangaroo.train.chat import encode_conversation, parse_messages


class DataError(ValueError):
    """The data cannot be used; the message names file, line and field."""


@dataclass(frozen=True)
class Document:
    """One text or conversation.

    Attributes:
        ids: [S] int64, the beginning-of-sequence token first where the tokenizer has one.
        answer: [S] bool, tokens the model is to write itself; None: plain text, all of them, and
            the document may be joined with others.
    """

    ids: Tensor
    answer: Tensor | None = None


def read_documents(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[Document]:
    """Every document of a file.

    .txt: the file is one document. .jsonl: one object a line, with "text", or with "messages" or
    "conversations" (a list of {"role", "content"} or {"from", "value"}), or with "input_ids" and
    "loss_mask" (lists of equal length, mask true on answers). Plain text ends with the
    end-of-sequence token.

    Raises:
        DataError: another suffix, a line that is none of these, or no documents at all.
    """
    if path.suffix == ".txt":
        return [encode_text(path.read_text(encoding="utf-8"), tokenizer)]
    if path.suffix != ".jsonl":
        raise DataError(f"{path}: expected a .jsonl or a .txt file")
    documents = [
        document
        for place, record in _records(path)
        if len((document := _encode_record(record, place, tokenizer)).ids) > 1
    ]
    if not documents:
        raise DataError(f"{path}: expected at least one document of two tokens or more")
    return documents


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase) -> Document:
    """A text as the engine would encode it, with the end-of-sequence token behind it."""
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(tokenizer.eos_token_id)
    return Document(torch.tensor(ids, dtype=torch.int64))


def bos_of(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token the tokenizer puts in front of every text; None: it puts none."""
    bos = tokenizer.bos_token_id
    return bos if bos is not None and tokenizer("a")["input_ids"][0] == bos else None


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:line", object) of every line that is not blank."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{place}: expected JSON: {error}") from error
            if not isinstance(record, dict):
                raise DataError(f"{place}: expected an object, got {type(record).__name__}")
            yield place, record


def _encode_record(
    record: dict[str, Any], place: str, tokenizer: PreTrainedTokenizerBase
) -> Document:
    for name in ("messages", "conversations"):
        if name in record:
            try:
                ids, answer = encode_conversation(parse_messages(record[name]), tokenizer)
            except ValueError as error:
                raise DataError(f"{place}: {name}: {error}") from error
            return Document(torch.tensor(ids), torch.tensor(answer, dtype=torch.bool))
    if "input_ids" in record:
        return _encoded(record, place, len(tokenizer))
    if isinstance(record.get("text"), str):
        return encode_text(record["text"], tokenizer)
    raise DataError(
        f'{place}: expected a field "text" (a string), "messages", "conversations" or "input_ids", '
        f"got {sorted(record)}"
    )


def _encoded(record: dict[str, Any], place: str, vocab_size: int) -> Document:
    """A line that has been tokenised already."""
    ids, mask = record["input_ids"], record.get("loss_mask")
    if not isinstance(ids, list) or not all(
        isinstance(token, int) and 0 <= token < vocab_size for token in ids
    ):
        raise DataError(f"{place}: input_ids: expected a list of tokens in [0, {vocab_size})")
    if not isinstance(mask, list) or len(mask) != len(ids) or any(m not in (0, 1) for m in mask):
        raise DataError(f"{place}: loss_mask: expected a list of {len(ids)} zeros and ones")
    return Document(torch.tensor(ids, dtype=torch.int64), torch.tensor(mask, dtype=torch.bool))
