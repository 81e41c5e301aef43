"""Adapters on disk: a folder of config.json and adapter.safetensors, bound to one target."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kangaroo.config import (
    ADAPTER_KINDS,
    AdapterConfig,
    AdapterKind,
    DrafterConfig,
    MedusaConfig,
    ModelConfig,
)
from kangaroo.models.adapter import Adapter
from kangaroo.models.adapter_format import CONFIG, describe, is_adapter, read_description
from kangaroo.models.eagle import Eagle
from kangaroo.models.families import model_config
from kangaroo.models.files import TensorFiles, file_sha256, flush, linked, read_json
from kangaroo.models.fingerprint import PARTS, fingerprint
from kangaroo.models.medusa import Medusa
from kangaroo.models.published import read_published

TENSORS = "adapter.safetensors"
DraftModule = Adapter | Medusa | Eagle  # what is trained, saved and loaded
Module = TypeVar("Module", bound=nn.Module)


def save_adapter(
    path: Path, adapter: DraftModule, target: ModelConfig, target_fingerprint: Mapping[str, str]
) -> None:
    """Write the adapter to folder `path`, whole or not at all.

    An adapter that is there is replaced; other files beside it stay.

    Raises:
        ValueError: `path` exists and is neither empty nor an adapter folder.
    """
    empty = path.is_dir() and not any(path.iterdir())
    if path.exists() and not empty and not is_adapter(path):
        raise ValueError(f"{path}: exists and is not an adapter folder; not touched")
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as workshop:
        new, old = Path(workshop, "new"), Path(workshop, "old")
        new.mkdir()
        tensors = {name: p.detach().cpu().contiguous() for name, p in adapter.named_parameters()}
        save_file(tensors, new / TENSORS, metadata={"format": "pt"})
        content = describe(adapter.config, target, target_fingerprint, file_sha256(new / TENSORS))
        (new / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        for file in (new / TENSORS, new / CONFIG):
            flush(file)
        if path.exists():
            own = shutil.ignore_patterns(CONFIG, TENSORS)
            shutil.copytree(
                path, new, symlinks=True, ignore=own, copy_function=linked, dirs_exist_ok=True
            )
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise


def save_rule(path: Path, max_depth: int, confidence: float) -> None:
    """Make this the deployed stopping rule of the adapter in folder `path`, or leave it as it is.

    Raises:
        ValueError: not an adapter folder, or the rule is impossible.
    """
    file = path / CONFIG
    old = read_description(file).adapter
    rule = asdict(replace(old, max_depth=max_depth, confidence=confidence))
    content = read_json(file) | {"adapter": rule}
    with TemporaryDirectory(dir=path, prefix=f".{CONFIG}.") as workshop:
        new = Path(workshop, CONFIG)
        new.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        flush(new)
        new.replace(file)


def load_adapter(
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    target_fingerprint: Mapping[str, str] | None = None,
) -> Adapter:
    """Kangaroo's adapter in folder `path`, as :func:`load_drafter` loads it.

    Raises:
        ValueError: as there, or it is of another kind.
    """
    return kangaroos(load_drafter(path, dtype, device, target_fingerprint), f"{path / CONFIG}: ")


def kangaroos(module: DraftModule, where: str = "") -> Adapter:
    """`module`, for what other drafters cannot do.

    Raises:
        ValueError: it is another drafter's; it begins with `where`.
    """
    if isinstance(module, Adapter):
        return module
    wanted = " or ".join(ADAPTER_KINDS)
    raise ValueError(f"{where}adapter: kind: expected {wanted}, got {module.config.kind}")


def load_drafter(
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    target_fingerprint: Mapping[str, str] | None = None,
) -> DraftModule:
    """What is in folder `path`, of any kind, converted, in eval mode, no gradients.

    Args:
        target_fingerprint: of the target it is to draft for; None: not compared.

    Raises:
        ValueError: a file, field or tensor is missing, surplus or wrong, or it belongs to another
            target.
    """
    described = read_description(path / CONFIG)
    if target_fingerprint is not None:
        _check_target(path / CONFIG, described.target_fingerprint, target_fingerprint)
    with torch.device("meta"):
        module = _module_of(described.adapter)
    files = TensorFiles([path / TENSORS])
    files.check({name: tuple(p.shape) for name, p in module.named_parameters()}, frozenset())
    if file_sha256(path / TENSORS) != described.sha256:
        raise ValueError(
            f"{path / TENSORS}: corrupt, or not the file that {CONFIG} was written with"
        )
    tensors = {
        name: torch.empty(p.shape, dtype=dtype, device=device).copy_(files.read(name))
        for name, p in module.named_parameters()
    }
    return filled(module, tensors)


def _module_of(config: DrafterConfig) -> DraftModule:
    if isinstance(config, AdapterConfig):
        return Adapter(config)
    return Medusa(config) if isinstance(config, MedusaConfig) else Eagle(config)


def init_adapter(model_dir: Path, exit_layer: int, out: Path, kind: AdapterKind, seed: int) -> None:
    """Write a fresh float32 adapter for the target in `model_dir` to folder `out`.

    Raises:
        ValueError: the target cannot be read, the exit layer is not inside it, or as save_adapter.
        UnsupportedError: the target's family is not supported.
    """
    target = model_config(model_dir)
    adapter = Adapter(AdapterConfig.for_target(target, kind, exit_layer))
    adapter.reset(seed)
    save_adapter(out, adapter, target, fingerprint(model_dir, exit_layer))


def convert_adapter(source_dir: Path, model_dir: Path, exit_layer: int, out: Path) -> None:
    """Write the adapter in `source_dir`, laid out as the paper's authors publish it, to `out`.

    Its head counts are its own; its positions rotate as the target's.

    Raises:
        ValueError: `source_dir` or the target cannot be read, the pickle in it holds anything but
            tensors, its geometry does not fit the target, or as save_adapter.
        UnsupportedError: the target's family is not supported.
    """
    target, source = model_config(model_dir), model_config(source_dir)
    for field in ("hidden_size", "head_dim"):
        if getattr(source, field) != getattr(target, field):
            raise ValueError(
                f"{source_dir / CONFIG}: {field}: expected the target's {getattr(target, field)}, "
                f"got {getattr(source, field)}"
            )
    config = replace(
        AdapterConfig.for_target(target, "paper", exit_layer),
        num_heads=source.num_heads,
        num_kv_heads=source.num_kv_heads,
        rms_norm_eps=source.rms_norm_eps,
    )
    with torch.device("meta"):
        adapter = Adapter(config)
    filled(adapter, read_published(source_dir, source))
    save_adapter(out, adapter, target, fingerprint(model_dir, exit_layer))


def filled(module: Module, tensors: Mapping[str, Tensor]) -> Module:
    """`module` with these tensors by name, none copied; in eval mode, no gradients."""
    module.load_state_dict(tensors, strict=True, assign=True)
    return module.requires_grad_(False).eval()


def _check_target(file: Path, made_for: Mapping[str, str], target: Mapping[str, str]) -> None:
    differing = [
        f"{part}: adapter {made_for[part][:12]}, target {target.get(part, 'absent')[:12]}"
        for part in PARTS
        if made_for[part] != target.get(part)
    ]
    if differing:
        raise ValueError(f"{file}: made for another target; {'; '.join(differing)}")
