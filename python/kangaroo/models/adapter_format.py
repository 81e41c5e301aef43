"""config.json of an adapter folder: the adapter, its target, the hash of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from kangaroo.config import AdapterConfig, ModelConfig
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
ADAPTER_KINDS: Kinds = {
    name: hint if hint in (int, float) else str
    for name, hint in get_type_hints(AdapterConfig).items()
}


@dataclass(frozen=True)
class Description:
    """What config.json says, checked.

    Attributes:
        target_fingerprint: sha256 of each of fingerprint.PARTS.
        sha256: of adapter.safetensors.
    """

    adapter: AdapterConfig
    target_fingerprint: dict[str, str]
    sha256: str


def is_adapter(path: Path) -> bool:
    """Folder `path` holds an adapter, perhaps a damaged one."""
    try:
        return read_json(path / CONFIG).get("format") == FORMAT
    except ValueError:
        return False


def describe(
    adapter: AdapterConfig, target: ModelConfig, target_fingerprint: Mapping[str, str], sha256: str
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
    check_fields(f"{file}: adapter", content["adapter"], ADAPTER_KINDS)
    check_fields(f"{file}: target", content["target"], TARGET_KINDS)
    target_fingerprint = content["target_fingerprint"]
    check_fields(f"{file}: target_fingerprint", target_fingerprint, dict.fromkeys(PARTS, str))
    try:
        adapter = AdapterConfig(**content["adapter"])
        _check_geometry(adapter, content["target"])
    except ValueError as error:
        raise ValueError(f"{file}: adapter: {error}") from error
    return Description(adapter, target_fingerprint, content["sha256"])


def _check_geometry(adapter: AdapterConfig, target: Mapping[str, Any]) -> None:
    for name in ("hidden_size", "head_dim"):
        if not 1 <= getattr(adapter, name) == target[name]:
            got = getattr(adapter, name)
            raise ValueError(f"{name}: expected the target's {target[name]}, got {got}")
    if adapter.num_kv_heads < 1 or adapter.num_heads % adapter.num_kv_heads:
        raise ValueError(
            f"num_kv_heads: expected a divisor of {adapter.num_heads}, got {adapter.num_kv_heads}"
        )
    if adapter.num_heads < 1:
        raise ValueError(f"num_heads: expected at least 1, got {adapter.num_heads}")
    if adapter.exit_layer >= target["num_layers"]:
        last = target["num_layers"] - 1
        raise ValueError(f"exit_layer: expected 1 to {last}, got {adapter.exit_layer}")
