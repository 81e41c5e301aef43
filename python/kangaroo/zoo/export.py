"""Write the corpus as JSONL for `kangaroo train` and `kangaroo bench`: `python -m
kangaroo.zoo.export DIR`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer

from kangaroo.zoo import corpus


def write_jsonl(path: Path, records: Iterable[dict[str, str]]) -> None:
    """One JSON object a line, UTF-8."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def pieces(text: str, length: int) -> Iterator[str]:
    """Of so many characters, the last of them of what is left."""
    for start in range(0, len(text), length):
        yield text[start : start + length]


def main(out: Path, piece_len: int | None = None) -> None:
    """Write train.jsonl and held_out.jsonl, one `{"text": ...}` a file, to OUT.

    With PIECE_LEN also pieces.jsonl: the files of train.jsonl in pieces of so many characters, so
    that the target can go on behind beginnings from all over them.
    """
    out.mkdir(parents=True, exist_ok=True)
    train, held_out = corpus.split(corpus.stdlib_files())
    write_jsonl(out / "train.jsonl", ({"text": text} for text in train))
    if piece_len is not None:
        each = (piece for text in train for piece in pieces(text, piece_len))
        write_jsonl(out / "pieces.jsonl", ({"text": piece} for piece in each))
    write_jsonl(out / "held_out.jsonl", ({"text": text} for text in held_out))


if __name__ == "__main__":
    typer.run(main)
