"""A run's config from a YAML file and from `key=value`, and back. Nothing is guessed.

Keys are the fields of `TrainConfig`, sections its sections; `optim.lr` is `lr` of section `optim`.
Paths are relative to the working directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from kangaroo.train.config import TrainConfig

Section = TypeVar("Section")


def read_config(file: Path | None, settings: Iterable[tuple[str, Any]]) -> TrainConfig:
    """The config in `file` (None: an empty one) with `settings`, dotted key and value, above it.

    Raises:
        ValueError: the file is not YAML, a key is unknown, missing or given twice, or a value is
            of another type or impossible; names the key, what was expected and what was given.
    """
    tree = {} if file is None else _read_yaml(file)
    given = set[str]()
    for key, value in settings:
        if key in given:
            raise ValueError(f"{key}: expected once, got twice on the command line")
        given.add(key)
        _put(tree, key, value)
    return _section(TrainConfig, tree, "")


def parse_setting(text: str) -> tuple[str, Any]:
    """ "optim.lr=3e-4" -> ("optim.lr", value); the value is YAML.

    Raises:
        ValueError: no key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"{text}: expected key=value, as in optim.lr=3e-4")
    return key, _parse(value, key)


def as_yaml(config: TrainConfig) -> str:
    """All fields, such that :func:`read_config` gives the same config again."""
    return str(yaml.safe_dump(_plain(asdict(config)), sort_keys=False))


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected UTF-8, got other bytes at {error.start}") from error
    tree = _parse(text, str(file))
    if not isinstance(tree, dict):
        raise ValueError(f"{file}: expected keys and values, got {tree!r}")
    return tree


def _parse(text: str, where: str) -> Any:
    try:
        _refuse_duplicates(yaml.compose(text, Loader=yaml.SafeLoader), where)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not valid YAML: {error}") from error


def _refuse_duplicates(node: Any, where: str) -> None:
    """PyYAML keeps the last of equal keys."""
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_duplicates(value, where)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if (name := str(key.value)) in seen:
                line = key.start_mark.line + 1
                raise ValueError(f"{where}: {name}: expected once, got again in line {line}")
            seen.add(name)
            _refuse_duplicates(value, where)


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        inner = tree.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{key}: expected {section} to be a section, got {inner!r}")
        tree = inner
    tree[name] = value


def _section(kind: type[Section], tree: Any, where: str) -> Section:
    """`tree` as a dataclass; names in errors begin with `where`."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where.rstrip('.')}: expected a section, got {tree!r}")
    hints = get_type_hints(kind)
    for key in tree:
        if key not in hints:
            raise ValueError(f"{where}{key}: unknown; expected one of {', '.join(hints)}")
    for f in fields(kind):  # type: ignore[arg-type]
        if f.default is MISSING and f.default_factory is MISSING and f.name not in tree:
            raise ValueError(
                f"{where}{f.name}: expected a path, in the file, as --{f.name} or {f.name}=...; "
                "got none"
            )
    values = {key: _value(hints[key], value, f"{where}{key}") for key, value in tree.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error


def _value(hint: Any, value: Any, name: str) -> Any:
    """`value`, if it is what a field of type `hint` holds."""
    if is_dataclass(hint):
        return _section(hint, value, f"{name}.")  # type: ignore[arg-type]
    if get_origin(hint) is UnionType:  # X | None
        return None if value is None else _value(get_args(hint)[0], value, name)
    if get_origin(hint) is tuple and isinstance(value, list) and len(value) == len(get_args(hint)):
        return tuple(map(_value, get_args(hint), value, [name] * len(value)))
    if get_origin(hint) is Literal and value in get_args(hint):
        return value
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # "3e-4" is a text in YAML 1.1
        except ValueError:
            pass
    if hint in (Path, str, int, bool) and type(value) is (str if hint is Path else hint):
        if value != "":
            return hint(value)
    raise ValueError(f"{name}: expected {_described(hint)}, got {value!r}")


def _described(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is tuple:
        return f"{len(get_args(hint))} numbers"
    return {Path: "a path", str: "a text", int: "a whole number", bool: "true or false"}.get(
        hint, "a number"
    )


def _plain(value: Any) -> Any:
    """As YAML has it."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
