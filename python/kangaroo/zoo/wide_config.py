"""config.json of a widened model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from kangaroo.config import ModelConfig
from kangaroo.models.families import model_config
from kangaroo.zoo.shapes import Shape
from kangaroo_kernels import UnsupportedError


def check_shape(small: ModelConfig, shape: Shape, shallow_layers: int) -> None:
    """`small` can be widened to `shape`, its heads apart.

    Raises:
        ValueError: a size is smaller than the small model's, or there are not so many extra layers.
        UnsupportedError: not a Llama without biases.
    """
    if small.family != "llama" or small.qkv_bias or small.o_bias:
        biases = " with biases" if small.family == "llama" else ""
        raise UnsupportedError(f"model_type: {small.family!r}{biases} cannot be widened")
    for field in ("hidden_size", "intermediate_size", "num_layers", "head_dim", "vocab_size"):
        least, got = getattr(small, field), getattr(shape, field)
        if got < least:
            raise ValueError(f"{shape.name}: {field}: expected at least {least}, got {got}")
    most = shape.num_layers - small.num_layers
    if not 0 <= shallow_layers <= most:
        raise ValueError(f"shallow_layers: expected 0 to {most}, got {shallow_layers}")


def wide_content(
    small: Mapping[str, Any], shape: Shape, eps: float, dtype: torch.dtype
) -> dict[str, Any]:
    """config.json of the small target -> that of the large one."""
    return {name: value for name, value in small.items() if name != "torch_dtype"} | {
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "rms_norm_eps": eps,
        "tie_word_embeddings": False,
        "dtype": str(dtype).removeprefix("torch."),
    }


def config_of(content: Mapping[str, Any]) -> ModelConfig:
    """The geometry that a config.json of this content describes."""
    with TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(content), encoding="utf-8")
        return model_config(Path(folder))
