"""Which target an adapter belongs to: hashes of the parts of it that the drafter shares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from kangaroo.config import ModelConfig
from kangaroo.models.families import hf_config, model_config
from kangaroo.models.files import TensorFiles
from kangaroo.models.weights import EMBED, HEAD, NORM, check_target, open_checkpoint, target_shapes

PARTS = ("config", "embeddings", "head", "norm", "shallow_layers", "tokenizer")
# Neither what a family is called nor how far a context may reach changes what a token's states are;
# frequencies are hashed as the numbers they come from, which no rounding can touch.
UNHASHED = ("family", "max_seq_len", "sliding_window", "rope_inv_freq", "rope_scale")
SLOW_TOKENIZER_FILES = ("tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json")


def fingerprint(path: Path, exit_layer: int) -> dict[str, str]:
    """sha256 of each of PARTS of the checkpoint in folder `path`, in hexadecimal.

    Tensors count as stored (name, dtype, shape, bytes), in whatever files they are. `tokenizer` is
    "none" where there is none.

    Raises:
        ValueError: config.json or a tensor is not as it should be, or the exit layer is not inside.
        UnsupportedError: the family is not supported.
    """
    config = model_config(path)
    if not 1 <= exit_layer < config.num_layers:
        raise ValueError(f"exit_layer: expected 1 to {config.num_layers - 1}, got {exit_layer}")
    files = open_checkpoint(path)
    check_target(files, config)
    shallow = tuple(f"model.layers.{layer}." for layer in range(exit_layer))
    return {
        "config": _hash_config(config, hf_config(path).rope_parameters),
        "embeddings": _hash_tensors(files, [EMBED]),
        "head": _hash_tensors(files, [EMBED if config.tie_embeddings else HEAD]),
        "norm": _hash_tensors(files, [NORM]),
        "shallow_layers": _hash_tensors(
            files, [name for name in target_shapes(config) if name.startswith(shallow)]
        ),
        "tokenizer": tokenizer_sha256(path),
    }


def weights_sha256(path: Path) -> str:
    """sha256 of every tensor of the checkpoint in folder `path`, the deep layers' too.

    Raises: as :func:`fingerprint`.
    """
    config, files = model_config(path), open_checkpoint(path)
    check_target(files, config)
    return _hash_tensors(files, target_shapes(config))


def _hash_config(config: ModelConfig, rope: dict[str, Any]) -> str:
    fields = {name: value for name, value in asdict(config).items() if name not in UNHASHED}
    # "type" is an old spelling of "rope_type", always there too; 10000 and 10000.0 are one theta.
    fields["rope"] = {
        name: float(value) if isinstance(value, int) else value
        for name, value in rope.items()
        if name != "type" and value is not None
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _hash_tensors(files: TensorFiles, names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name} {files.dtype(name)} {files.shape(name)}\n".encode())
        digest.update(files.read(name).contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_sha256(path: Path) -> str:
    """sha256 of the tokenizer's files in folder `path`; "none" where there is none."""
    fast = path / "tokenizer.json"
    candidates = [fast] if fast.is_file() else [path / name for name in SLOW_TOKENIZER_FILES]
    found = [file for file in candidates if file.is_file()]
    if not found:
        return "none"
    digest = hashlib.sha256()
    for file in found:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
