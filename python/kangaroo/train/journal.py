"""Work on numbered items that may be killed at any moment: what is done is kept, line by line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """A file of JSON lines: who wrote it, then a result per item, in the order they came about.

    What a kill left behind the last whole line is cut off. Use it as a context.

    Args:
        identity: what every result follows from; a journal of another is refused.

    Raises:
        ValueError: the file is another's.
    """

    def __init__(self, file: Path, identity: dict[str, Any]):
        self.file, self._offsets = file, dict[int, int]()
        file.touch()
        self._stream = file.open("r+b")
        try:
            self._open(identity)
        except ValueError:
            self._stream.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()

    def __len__(self) -> int:
        """Items that have a result."""
        return len(self._offsets)

    def __contains__(self, item: int) -> bool:
        return item in self._offsets

    def add(self, item: int, result: dict[str, Any]) -> None:
        """Keep the result of an item; it survives the end of the process, however that comes."""
        self._offsets[item] = self._append({"item": item, "result": result})

    def __getitem__(self, item: int) -> dict[str, Any]:
        """The result of an item that has one."""
        self._stream.seek(self._offsets[item])
        result: dict[str, Any] = json.loads(self._stream.readline())["result"]
        return result

    def _open(self, identity: dict[str, Any]) -> None:
        first = self._stream.readline()
        if not first.endswith(b"\n"):  # new, or killed as it was begun
            if not _line({"identity": identity}).startswith(first):
                raise ValueError(f"{self.file}: expected this run's journal, got something else")
            self._stream.truncate(0)
            self._append({"identity": identity})
            return
        started = (_parsed(first) or {}).get("identity", {})
        for name, value in identity.items():
            if started.get(name) != value:
                raise ValueError(
                    f"{self.file}: {name}: the run was started with {started.get(name)!r}, got "
                    f"{value!r}; expected the same, or another out"
                )
        offset = self._stream.tell()
        while (record := _parsed(self._stream.readline())) is not None:
            self._offsets[record["item"]] = offset
            offset = self._stream.tell()
        self._stream.truncate(offset)

    def _append(self, record: dict[str, Any]) -> int:
        """One more line; returns where it stands."""
        offset = self._stream.seek(0, os.SEEK_END)
        self._stream.write(_line(record))
        self._stream.flush()
        return offset


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, default=str).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object of a whole line; None: it was cut short, or there is none."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
