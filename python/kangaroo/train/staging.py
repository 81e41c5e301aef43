"""A folder of JSON lines on disk: whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kangaroo.models.files import flush
from kangaroo.train.whole import put_in_place


def require_free(out: Path) -> None:
    """Raises ValueError unless a folder `out` can be made."""
    if out.exists():
        raise ValueError(f"out: {out} exists; expected another folder")
    if not out.parent.is_dir():
        raise ValueError(f"out: no such folder: {out.parent}")


@contextmanager
def whole_folder(out: Path, workshop: Path | None = None) -> Iterator[Path]:
    """A folder to write files to, which becomes `out` at the end; an error leaves no trace.

    Args:
        workshop: where it stands until then, and stays after a kill; None: beside `out`.

    Raises:
        ValueError: as :func:`require_free`.
    """
    require_free(out)
    with TemporaryDirectory(dir=workshop or out.parent, prefix=f".{out.name}.") as temporary:
        new = Path(temporary, "new")
        new.mkdir()
        yield new
        for file in new.iterdir():
            flush(file)
        require_free(out)
        put_in_place(new, out)


def write_lines(file: Path, records: Iterable[dict[str, Any]]) -> None:
    """One JSON object a line, in ASCII."""
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(record, default=str) + "\n" for record in records)
