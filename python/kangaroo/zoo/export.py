"""Write the corpus as JSONL for `kangaroo train` and `kangaroo bench`: `python -m
kangaroo.zoo.export --out DIR`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import typer

from kangaroo.zoo import corpus


def write_jsonl(path: Path, records: Iterable[dict[str, str]]) -> None:
    """One JSON object a line, UTF-8."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def main(out: Path) -> None:
    """Write train.jsonl and held_out.jsonl, one `{"text": ...}` a file, to OUT."""
    out.mkdir(parents=True, exist_ok=True)
    train, held_out = corpus.split(corpus.stdlib_files())
    write_jsonl(out / "train.jsonl", ({"text": text} for text in train))
    write_jsonl(out / "held_out.jsonl", ({"text": text} for text in held_out))


if __name__ == "__main__":
    typer.run(main)
