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

from kangaroo.train.chat import Message, check_unicode, encode_conversation, parse_messages


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


@dataclass(frozen=True)
class Rejected:
    """A line that cannot be used; str() names file, line and reason.

    Attributes:
        line: from 1; content: of the line (of a .txt file: all of it), where it is not UTF-8
            with its bytes escaped.
    """

    file: Path
    line: int
    reason: str
    content: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Line:
    """A line of data, or the whole of a .txt file; number: from 1."""

    file: Path
    number: int
    content: bytes

    def rejected(self, error: ValueError) -> Rejected:
        """This line, which `error` speaks against; what is not UTF-8 is found inside a text."""
        number = self.number
        if isinstance(error, UnicodeDecodeError):
            number += self.content[: error.start].count(b"\n")
            reason = f"expected UTF-8, got byte 0x{self.content[error.start]:02x}"
        else:
            reason = " ".join(str(error).split())
        content = self.content.decode("utf-8", "backslashreplace").rstrip("\r\n")
        return Rejected(self.file, number, reason, content)


def read_documents(
    path: Path, tokenizer: PreTrainedTokenizerBase, vocab_size: int | None = None
) -> list[Document]:
    """Every document of a file.

    .txt: the file is one document. .jsonl: one object a line, with "text", or with "messages" or
    "conversations" (a list of {"role", "content"} or {"from", "value"}), or with "input_ids" and
    "loss_mask" (lists of equal length, mask true on answers; null: plain text). Plain text ends
    with the end-of-sequence token.

    Args:
        vocab_size: of the target, whose embedding may have fewer tokens than the tokenizer; None:
            it has all of them.

    Raises:
        DataError: another suffix, a line that is none of these or has nothing to train on, or no
            documents at all.
    """
    documents = []
    vocab_size = len(tokenizer) if vocab_size is None else min(vocab_size, len(tokenizer))
    for found in scan(path, tokenizer, vocab_size):
        if isinstance(found, Rejected):
            raise DataError(f"{found} (kangaroo data prepare sets such lines aside)")
        documents.append(found)
    if not documents:
        raise DataError(f"{path}: expected at least one document")
    return documents


def scan(
    path: Path, tokenizer: PreTrainedTokenizerBase, vocab_size: int, max_len: int | None = None
) -> Iterator[Document | Rejected]:
    """The documents of a file in its order, and the lines that are none.

    Args:
        vocab_size: tokens are below it.
        max_len: tokens of a conversation at most; None: any number. Plain text is cut anyway.

    Raises:
        DataError: another suffix than .txt and .jsonl.
    """
    for line in lines_of(path):
        try:
            document = encode(record_of(line), tokenizer)
            _check(document, vocab_size, max_len)
        except ValueError as error:
            yield line.rejected(error)
        else:
            yield document


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a .jsonl file that are not blank; the whole of a .txt file.

    Raises:
        DataError: another suffix.
    """
    if path.suffix == ".txt":
        yield Line(path, 1, path.read_bytes())
    elif path.suffix == ".jsonl":
        with path.open("rb") as lines:
            for number, content in enumerate(lines, start=1):
                if content.strip():
                    yield Line(path, number, content)
    else:
        raise DataError(f"{path}: expected a .jsonl or a .txt file")


def record_of(line: Line) -> dict[str, Any]:
    """The JSON object of a line; of a .txt file {"text": all of it}.

    Raises:
        ValueError: it is not UTF-8 (UnicodeDecodeError), not JSON or no object.
    """
    text = line.content.decode("utf-8")
    if line.file.suffix == ".txt":
        return {"text": text}
    try:
        record = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"expected JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"expected an object, got {type(record).__name__}")
    return record


def encode(record: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Document:
    """The document of one record.

    Raises:
        ValueError: the record is none of those of `read_documents`; names the field.
    """
    if (messages := messages_of(record)) is not None:
        ids, answer = encode_conversation(messages, tokenizer)
        return Document(torch.tensor(ids), torch.tensor(answer, dtype=torch.bool))
    if "input_ids" in record:
        return _encoded(record)
    return encode_text(text_of(record), tokenizer)


def messages_of(record: dict[str, Any]) -> list[Message] | None:
    """Those of a conversation; None: the record is none.

    Raises:
        ValueError: they are not as they must be.
    """
    for name in ("messages", "conversations"):
        if name in record:
            try:
                return parse_messages(record[name])
            except ValueError as error:
                raise DataError(f"{name}: {error}") from error
    return None


def text_of(record: dict[str, Any]) -> str:
    """The plain text of a record.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(text := record.get("text"), str):
        raise DataError(
            'expected a field "text" (a string), "messages", "conversations" or "input_ids", got '
            f"{sorted(record)}"
        )
    if not text:
        raise DataError("text: expected at least one character")
    return check_unicode("text", text)


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


def _encoded(record: dict[str, Any]) -> Document:
    """A line that has been tokenised already."""
    ids, mask = record["input_ids"], record.get("loss_mask", ...)
    if not isinstance(ids, list) or not all(type(t) is int and 0 <= t < 2**31 for t in ids):
        raise DataError("input_ids: expected a list of tokens")
    if mask is None:
        return Document(torch.tensor(ids, dtype=torch.int64))
    if not isinstance(mask, list) or len(mask) != len(ids) or any(m not in (0, 1) for m in mask):
        raise DataError(f"loss_mask: expected null, or a list of {len(ids)} zeros and ones")
    return Document(torch.tensor(ids, dtype=torch.int64), torch.tensor(mask, dtype=torch.bool))


def _check(document: Document, vocab_size: int, max_len: int | None) -> None:
    """Raises DataError where a document cannot be trained on."""
    ids, answer = document.ids, document.answer
    if outside := [token for token in ids.tolist() if not 0 <= token < vocab_size]:
        raise DataError(f"expected tokens in [0, {vocab_size}), got {outside[0]}")
    if len(ids) < 2:
        raise DataError(f"expected at least two tokens, got {len(ids)}")
    if answer is None:
        return
    if not answer[1:].any():
        raise DataError("expected an answer behind the first token: there is nothing to train on")
    if max_len is not None and len(ids) > max_len:
        raise DataError(f"expected at most {max_len} tokens, the target's context, got {len(ids)}")
