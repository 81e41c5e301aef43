"""Tiny random checkpoints on disk, of every family, lively enough that mistakes show in logits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
# By name: the model_type and what it changes of SHAPE.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"num_key_value_heads": 4}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-gqa-llama3": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama-linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "llama-yarn": ("llama", {"rope_parameters": YARN_ROPE}),
    "llama-bias": ("llama", {"attention_bias": True}),
    "llama-wide-heads": ("llama", {"head_dim": 32}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2-untied": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3-bias-tied": (
        "qwen3",
        {"head_dim": 32, "attention_bias": True, "tie_word_embeddings": True},
    ),
}
SHAPE = {
    "vocab_size": 263,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make_checkpoint(
    path: Path,
    family: str,
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
    **overrides: Any,
) -> Path:
    """Write a random checkpoint to folder `path`, and return it.

    The same family, seed and overrides give the same weights, whatever dtype they are rounded to
    and however they are cut into files.

    Args:
        family: a name in FAMILIES.
        overrides: fields of config.json.
    """
    model_type, changes = FAMILIES[family]
    config = AutoConfig.for_model(model_type, **(SHAPE | changes | overrides))
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.empty(p.shape).normal_(0.0, 0.2, generator=generator)
            p.copy_(1.0 + noise if "norm" in name else noise)
    model.to(dtype).save_pretrained(path, max_shard_size=max_shard_size)
    return path


def edit_json(file: Path, **fields: Any) -> None:
    """Set fields of the JSON object in `file`; a field set to `...` is removed."""
    content = json.loads(file.read_text()) | fields
    file.write_text(
        json.dumps({name: value for name, value in content.items() if value is not ...})
    )


def edit_tensors(file: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Let `edit` change the tensors of a safetensors file in place."""
    tensors = load_file(file)
    edit(tensors)
    save_file(
        {name: t.contiguous() for name, t in tensors.items()}, file, metadata={"format": "pt"}
    )
