"""Reads adapters as the paper's authors publish them: one Llama layer without MLP, and a norm."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from kangaroo.config import ModelConfig
from kangaroo.models.files import TensorFiles
from kangaroo.models.weights import HARMLESS_SUFFIX


def read_published(source_dir: Path, source: ModelConfig) -> dict[str, Tensor]:
    """Tensors of a published adapter under the names that Adapter gives them, in their own dtype.

    Args:
        source_dir: holds model.safetensors or pytorch_model.bin.
        source: geometry in the config.json beside it.

    Raises:
        ValueError: neither file is there; it is corrupt; it pickles anything but tensors; or a
            tensor is missing, surplus or of another shape.
    """
    c, d = source.hidden_size, source.head_dim
    q, kv = source.num_heads * d, source.num_kv_heads * d
    expected = {
        "layers.0.input_layernorm.weight": (c,),
        "layers.0.self_attn.q_proj.weight": (q, c),
        "layers.0.self_attn.k_proj.weight": (kv, c),
        "layers.0.self_attn.v_proj.weight": (kv, c),
        "layers.0.self_attn.o_proj.weight": (c, q),
        "norm.weight": (c,),
    }
    file, stored = _read_tensors(source_dir)
    stored = {name: t for name, t in stored.items() if not name.endswith(HARMLESS_SUFFIX)}
    if wrong := sorted(expected.keys() ^ stored.keys()):
        kind = "missing" if wrong[0] in expected else "surplus"
        raise ValueError(f"{file}: {kind} tensor {wrong[0]}")
    for name, shape in expected.items():
        if tuple(stored[name].shape) != shape or not stored[name].is_floating_point():
            got = f"{tuple(stored[name].shape)} {stored[name].dtype}"
            raise ValueError(f"{file}: tensor {name}: expected floating {shape}, got {got}")
    input_norm, *qkv, o, norm = (stored[name] for name in expected)
    return {"input_norm": input_norm, "qkv": torch.cat(qkv), "o": o, "norm": norm}


def _read_tensors(source_dir: Path) -> tuple[Path, dict[str, Tensor]]:
    file = source_dir / "model.safetensors"
    if file.exists():
        files = TensorFiles([file])
        return file, {name: files.read(name) for name in files.names[file]}
    file = source_dir / "pytorch_model.bin"
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{source_dir}: no {file.name} and no model.safetensors") from error
    except pickle.UnpicklingError as error:
        raise ValueError(f"{file}: refused: not a pickle of tensors alone") from error
    except Exception as error:  # what the unpickler raises on damaged bytes has no end
        raise ValueError(f"{file}: truncated or corrupt") from error
    if not isinstance(stored, dict) or not all(isinstance(t, Tensor) for t in stored.values()):
        raise ValueError(f"{file}: expected a dict of tensors")
    return file, stored
