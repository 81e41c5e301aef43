"""Folders that are whole or not there: written aside, flushed, listed with hashes, then renamed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from kangaroo.models.files import file_sha256, read_json

MANIFEST = "manifest.json"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """An empty folder to write to, which becomes `path` where the context ends without an error.

    Its files are listed in MANIFEST with size and SHA-256, last of all. After an error, or a kill,
    there is no `path`.

    Raises:
        ValueError: another process is writing `path`, or was killed while it did.
    """
    workshop = path.with_name(f".{path.name}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        workshop.mkdir()
    except FileExistsError:
        raise ValueError(
            f"{workshop}: another process writes here, or was killed while it did; in that case "
            "remove it"
        ) from None
    try:
        yield workshop
        files = {file.name: _facts(file) for file in sorted(workshop.iterdir())}
        write_json(workshop / MANIFEST, files)
        put_in_place(workshop, path)
    except BaseException:
        shutil.rmtree(workshop, ignore_errors=True)
        raise


def put_in_place(workshop: Path, path: Path) -> None:
    """Rename a folder of flushed files to `path`; no crash shows a part of it there."""
    flush_folder(workshop)
    workshop.rename(path)
    flush_folder(path.parent)


def check_whole(path: Path, *, hashes: bool) -> None:
    """The folder has exactly the files of its manifest, of these sizes and, if asked, contents.

    Raises:
        ValueError: names the file.
    """
    listed = read_json(path / MANIFEST)
    present = {file.name for file in path.iterdir()} - {MANIFEST}
    if present != listed.keys():
        name = min(present ^ listed.keys())
        what = "missing" if name in listed else f"not in {MANIFEST}"
        raise ValueError(f"{path / name}: {what}; the folder is damaged")
    for name, facts in listed.items():
        found = _facts(path / name) if hashes else {"size": (path / name).stat().st_size}
        for fact, value in found.items():
            if facts.get(fact) != value:
                raise ValueError(
                    f"{path / name}: damaged: {fact}: expected {facts.get(fact)}, got {value}"
                )


def write_file(file: Path, content: bytes) -> None:
    """Write and flush a new file."""
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write and flush a new file."""
    write_file(file, (json.dumps(content, indent=2, default=str) + "\n").encode())


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write and flush a new safetensors file."""
    write_file(file, save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))


def replace_file(file: Path, content: bytes) -> None:
    """Give `file`, there or not, this content, or leave it as it was."""
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    write_file(new, content)
    new.replace(file)
    flush_folder(file.parent)


def remove_folder(path: Path) -> None:
    """Remove `path` in one step; a kill leaves at most a hidden folder."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    shutil.rmtree(old)


def sweep(folder: Path, own: re.Pattern[str]) -> None:
    """Remove what a killed process left half-written or half-removed in `folder`, if `own` matches
    its name.
    """
    for path in folder.glob(".*.*"):
        if path.suffix in (".new", ".old") and own.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def flush_folder(path: Path) -> None:
    """Names in the folder to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _facts(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": file_sha256(file)}
