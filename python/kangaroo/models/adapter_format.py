"""config.json of an adapter folder: the adapter, its target, the hash of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from kangaroo.config import (
    ADAPTER_KINDS,
    AdapterConfig,
    DrafterConfig,
    EagleConfig,
    MedusaConfig,
    ModelConfig,
)
from kangaroo.models.files import Kinds, check_fields, read_json
from kangaroo.models.fingerprint import PARTS

FORMAT, VERSION = "kangaroo-adapter", 1
CONFIG = "config.json"
TOP_KINDS: Kinds = {
    "format": str,
    "version": int,
    "adapter": dict,
    "target": dict,
    "target_fingerprint": dict,
    "sha256": str,
}
TARGET_KINDS: Kinds = {
    "family": str,
    "vocab_size": int,
    "hidden_size": int,
    "num_layers": int,
    "num_heads": int,
    "num_kv_heads": int,
    "head_dim": int,
}
CONFIGS: dict[str, type[DrafterConfig]] = {
    **dict.fromkeys(ADAPTER_KINDS, AdapterConfig),
    "medusa": MedusaConfig,
    "eagle": EagleConfig,
}


@dataclass(frozen=True)
class Description:
    """What config.json says, checked.

    Attributes:
        target_fingerprint: sha256 of each of fingerprint.PARTS.
        sha256: of adapter.safetensors.
    """

    adapter: DrafterConfig
    target_fingerprint: dict[str, str]
    sha256: str


def is_adapter(path: Path) -> bool:
    """Folder `path` holds an adapter, perhaps a damaged one."""
    try:
        return read_json(path / CONFIG).get("format") == FORMAT
    except ValueError:
        return False


def describe(
    adapter: DrafterConfig, target: ModelConfig, target_fingerprint: Mapping[str, str], sha256: str
) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "adapter": asdict(adapter),
        "target": {name: getattr(target, name) for name in TARGET_KINDS},
        "target_fingerprint": dict(target_fingerprint),
        "sha256": sha256,
    }


def read_description(file: Path) -> Description:
    """What `describe` wrote to `file`.

    Raises:
        ValueError: not such a file, or a field in it is missing, unknown, of another kind or
            impossible.
    """
    content = read_json(file)
    for field, expected in (("format", FORMAT), ("version", VERSION)):
        if content.get(field) != expected:
            raise ValueError(f"{file}: {field}: expected {expected!r}, got {content.get(field)!r}")
    check_fields(f"{file}", content, TOP_KINDS)
    config = _config_class(f"{file}: adapter", content["adapter"])
    check_fields(f"{file}: target", content["target"], TARGET_KINDS)
    target_fingerprint = content["target_fingerprint"]
    check_fields(f"{file}: target_fingerprint", target_fingerprint, dict.fromkeys(PARTS, str))
    try:
        adapter = config(**content["adapter"])
        _check_geometry(adapter, content["target"])
    except ValueError as error:
        raise ValueError(f"{file}: adapter: {error}") from error
    return Description(adapter, target_fingerprint, content["sha256"])


def _config_class(where: str, content: Mapping[str, Any]) -> type[DrafterConfig]:
    """Of the kind that `content` says, whose fields it has."""
    kind = content.get("kind")
    if isinstance(kind, str) and kind not in CONFIGS:
        raise ValueError(f"{where}: kind: expected one of {', '.join(CONFIGS)}, got {kind!r}")
    config = CONFIGS[kind] if isinstance(kind, str) else AdapterConfig  # refused by its fields
    hints = get_type_hints(config)
    numbers = (int, float, bool)
    kinds = {f.name: hints[f.name] if hints[f.name] in numbers else str for f in fields(config)}
    check_fields(where, content, kinds)
    return config


def _check_geometry(adapter: DrafterConfig, target: Mapping[str, Any]) -> None:
    """What it has from its target is the target's; Kangaroo's adapters alone have heads of any
    number.
    """
    own = isinstance(adapter, AdapterConfig)
    shared = ("hidden_size", "head_dim") if own else [f.name for f in fields(adapter)]
    for name in shared:
        if name in TARGET_KINDS and not 1 <= getattr(adapter, name) == target[name]:
            got = getattr(adapter, name)
            raise ValueError(f"{name}: expected the target's {target[name]}, got {got}")
    if not isinstance(adapter, AdapterConfig):
        return
    if adapter.num_kv_heads < 1 or adapter.num_heads % adapter.num_kv_heads:
        raise ValueError(
            f"num_kv_heads: expected a divisor of {adapter.num_heads}, got {adapter.num_kv_heads}"
        )
    if adapter.num_heads < 1:
        raise ValueError(f"num_heads: expected at least 1, got {adapter.num_heads}")
    if adapter.exit_layer >= target["num_layers"]:
        last = target["num_layers"] - 1
        raise ValueError(f"exit_layer: expected 1 to {last}, got {adapter.exit_layer}")
