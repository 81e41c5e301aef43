"""JSON and safetensors files. Whatever is wrong with one is said in one line with its name."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

Kinds = Mapping[str, type]  # of the fields of a JSON object, by name
FLOAT_DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes of a number
# Pages of a mapped file count as the process's own memory once they have been read.
MAPPED_BYTES = 64 * 2**20


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`.

    Raises:
        ValueError: no such file, or not a JSON object in it.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected a JSON object, got {type(content).__name__}")
    return content


def check_fields(where: str, content: Mapping[str, Any], kinds: Kinds) -> None:
    """`content` has exactly the fields of `kinds`, each of its kind; whole numbers are floats too.

    Raises:
        ValueError: the first that is missing, unknown or of another kind; it begins with `where`.
    """
    if missing := sorted(kinds.keys() - content.keys()):
        raise ValueError(f"{where}: missing field {missing[0]}")
    if unknown := sorted(content.keys() - kinds.keys()):
        raise ValueError(f"{where}: unknown field {unknown[0]}")
    for name, kind in kinds.items():
        value = content[name]
        fits = isinstance(value, (float, int) if kind is float else kind)
        if not fits or isinstance(value, bool) != (kind is bool):
            raise ValueError(f"{where}: {name}: expected {kind.__name__}, got {value!r}")


def file_sha256(file: Path) -> str:
    """sha256 of the bytes of `file`, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_free(file: Path, form: str, noun: str) -> None:
    """Refuse to write where something else than a former result is.

    Args:
        form: the "format" of such results, which are JSON; noun: what one is called.

    Raises:
        ValueError: something is there, or the folder is not.
    """
    if (file.exists() or file.is_symlink()) and not _is_of(form, file):
        raise ValueError(f"{file}: exists and is no {noun}; not touched")
    if not file.parent.is_dir():
        raise ValueError(f"{file.parent}: no such folder")


def _is_of(form: str, file: Path) -> bool:
    try:
        return file.is_file() and read_json(file).get("format") == form
    except ValueError:
        return False


def linked(source: str, to: str) -> str:
    """The same file under another name; where there are no such links, a copy."""
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)
    return to


def flush(file: Path) -> None:
    """Contents to the disk before the rename that makes them count."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


class _Stored(NamedTuple):
    file: Path
    shape: tuple[int, ...]
    dtype: str


class TensorFiles:
    """Named tensors, whichever file each is in. Opening reads headers; `read` reads one tensor.

    Attributes:
        names: by file, the tensors in it.
    """

    def __init__(self, files: Iterable[Path]):
        """Open `files`, whose headers must account for every byte in them.

        Raises:
            ValueError: a file is absent, truncated or corrupt, or two hold the same tensor.
        """
        self.names: dict[Path, frozenset[str]] = {}
        self._stored: dict[str, _Stored] = {}
        self._mapped: dict[Path, Any] = {}
        self._mapped_bytes = 0
        for file in files:
            handle = _open(file)
            self.names[file] = frozenset(handle.keys())
            for name in handle.keys():
                if name in self:
                    raise ValueError(f"{file}: tensor {name} is in {self.file(name).name} too")
                header = handle.get_slice(name)
                shape, dtype = tuple(header.get_shape()), str(header.get_dtype())
                self._stored[name] = _Stored(file, shape, dtype)

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def file(self, name: str) -> Path:
        """Where the tensor is."""
        return self._stored[name].file

    def shape(self, name: str) -> tuple[int, ...]:
        """As stored."""
        return self._stored[name].shape

    def dtype(self, name: str) -> str:
        """As safetensors spells it: "F32", "BF16", ..."""
        return self._stored[name].dtype

    def num_bytes(self, name: str) -> int:
        """Size of a floating-point tensor as stored."""
        return math.prod(self.shape(name)) * FLOAT_DTYPES[self.dtype(name)]

    def read(self, name: str) -> Tensor:
        """The tensor as stored, on the CPU; perhaps a view of the file, so copy what is kept.

        Beside the tensors that the caller keeps, at most MAPPED_BYTES and the tensor are in memory.
        """
        if self._mapped_bytes > MAPPED_BYTES:
            self._mapped.clear()
            self._mapped_bytes = 0
        file = self.file(name)
        if file not in self._mapped:
            self._mapped[file] = _open(file)
        tensor: Tensor = self._mapped[file].get_tensor(name)
        self._mapped_bytes += tensor.nbytes
        return tensor

    def check(self, expected: Mapping[str, tuple[int, ...]], ignored: frozenset[str]) -> None:
        """Headers hold exactly the `expected` tensors, floating, of these shapes; `ignored` apart.

        Raises:
            ValueError: the first tensor that is missing, surplus, of another shape or not floating.
        """
        where = ", ".join(str(file) for file in self.names)
        missing = [name for name in expected if name not in self]
        if missing:
            raise ValueError(f"{where}: missing tensor {missing[0]}{_and_more(missing)}")
        surplus = sorted(self._stored.keys() - expected.keys() - ignored)
        if surplus:
            file = self.file(surplus[0])
            raise ValueError(f"{file}: surplus tensor {surplus[0]}{_and_more(surplus)}")
        for name, shape in expected.items():
            what = f"{self.file(name)}: tensor {name}:"
            if self.shape(name) != shape:
                raise ValueError(f"{what} expected shape {shape}, got {self.shape(name)}")
            if self.dtype(name) not in FLOAT_DTYPES:
                got = self.dtype(name)
                raise ValueError(f"{what} expected one of {', '.join(FLOAT_DTYPES)}, got {got}")


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except OSError as error:
        raise ValueError(f"{file}: no such file, or it cannot be read") from error
    except SafetensorError as error:
        raise ValueError(f"{file}: truncated or corrupt: {error}") from error


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
