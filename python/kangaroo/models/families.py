"""config.json of a checkpoint folder -> ModelConfig. What sets the families apart is data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from kangaroo.config import ModelConfig
from kangaroo.models.files import read_json
from kangaroo_kernels import UnsupportedError


@dataclass(frozen=True)
class Family:
    """How a family departs from Llama.

    Attributes:
        qkv_bias, o_bias: True or False, or the config.json field that says so.
        qk_norm: RMSNorm on query and key heads.
        sliding_window: "none"; "all" layers look back `sliding_window` tokens, where that is set;
            "typed": those layers that `layer_types` marks as sliding.
    """

    qkv_bias: bool | str = False
    o_bias: bool | str = False
    qk_norm: bool = False
    sliding_window: str = "none"


FAMILIES = {
    "llama": Family(qkv_bias="attention_bias", o_bias="attention_bias"),
    "mistral": Family(sliding_window="all"),
    "qwen2": Family(qkv_bias=True, sliding_window="typed"),
    "qwen3": Family("attention_bias", "attention_bias", qk_norm=True, sliding_window="typed"),
}
# Scalings whose frequencies are the same whatever the length of the sequence.
FIXED_ROPE_TYPES = ("linear", "llama3", "yarn")
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)


def model_config(path: Path) -> ModelConfig:
    """Geometry of the checkpoint in folder `path`.

    Raises:
        ValueError: config.json is absent or invalid.
        UnsupportedError: the family, or something config.json asks for, is not supported.
    """
    file = path / "config.json"
    hf = hf_config(path)
    family = FAMILIES[hf.model_type]
    inv_freq, rope_scale = _rope_frequencies(file, hf)
    return ModelConfig(
        family=hf.model_type,
        vocab_size=hf.vocab_size,
        hidden_size=hf.hidden_size,
        intermediate_size=hf.intermediate_size,
        num_layers=hf.num_hidden_layers,
        num_heads=hf.num_attention_heads,
        num_kv_heads=hf.num_key_value_heads,
        head_dim=_head_dim(hf),
        max_seq_len=_max_seq_len(hf),
        rms_norm_eps=hf.rms_norm_eps,
        rope_inv_freq=inv_freq,
        rope_scale=rope_scale,
        qkv_bias=_flag(hf, family.qkv_bias),
        o_bias=_flag(hf, family.o_bias),
        qk_norm=family.qk_norm,
        tie_embeddings=bool(hf.tie_word_embeddings),
        sliding_window=_sliding_window(hf, family),
    )


def hf_config(path: Path) -> Any:
    """transformers' own reading of config.json, checked against what the engine can run.

    Raises: as model_config.
    """
    file = path / "config.json"
    model_type = read_json(file).get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UnsupportedError(
            f"{file}: model_type: {model_type!r} is not supported; supported: {', '.join(FAMILIES)}"
        )
    try:
        hf = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise ValueError(f"{file}: {' '.join(str(error).split())}") from error
    _check_sizes(file, hf)
    _check_supported(file, hf)
    return hf


def _check_sizes(file: Path, hf: Any) -> None:
    for field in SIZES:
        if getattr(hf, field) < 1:
            raise ValueError(f"{file}: {field}: expected at least 1, got {getattr(hf, field)}")
    if hf.num_attention_heads % hf.num_key_value_heads:
        raise ValueError(
            f"{file}: num_key_value_heads: expected a divisor of num_attention_heads "
            f"({hf.num_attention_heads}), got {hf.num_key_value_heads}"
        )
    if _head_dim(hf) < 2 or _head_dim(hf) % 2:
        raise ValueError(f"{file}: head_dim: expected an even number, got {_head_dim(hf)}")


def _check_supported(file: Path, hf: Any) -> None:
    rope = hf.rope_parameters
    rope_type = rope.get("rope_type")  # absent where every layer type has its own parameters
    refusals = {
        "hidden_act": (hf.hidden_act, hf.hidden_act != "silu"),
        "mlp_bias": (True, getattr(hf, "mlp_bias", False)),
        "quantization_config": ("set", getattr(hf, "quantization_config", None) is not None),
        "rope_parameters.rope_type": (rope_type, rope_type not in ("default", *FIXED_ROPE_TYPES)),
        "partial_rotary_factor": (
            rope.get("partial_rotary_factor"),
            rope.get("partial_rotary_factor") not in (None, 1),
        ),
    }
    for field, (value, refused) in refusals.items():
        if refused:
            raise UnsupportedError(f"{file}: {field}: {value!r} is not supported")


def _rope_frequencies(file: Path, hf: Any) -> tuple[tuple[float, ...], float]:
    """[D / 2] frequencies, bit for bit transformers' float32 ones; the factor on cos and sin."""
    rope = hf.rope_parameters
    if not isinstance(rope["rope_theta"], float | int) or rope["rope_theta"] <= 0:
        raise ValueError(
            f"{file}: rope_theta: expected a positive number, got {rope['rope_theta']!r}"
        )
    if rope["rope_type"] == "default":
        dim = _head_dim(hf)
        exponents = torch.arange(0, dim, 2, dtype=torch.float32) / dim
        return tuple((1.0 / rope["rope_theta"] ** exponents).tolist()), 1.0
    inv_freq, scale = ROPE_INIT_FUNCTIONS[rope["rope_type"]](hf, torch.device("cpu"))
    return tuple(inv_freq.tolist()), float(scale)


def _max_seq_len(hf: Any) -> int:
    rope, length = hf.rope_parameters, int(hf.max_position_embeddings)
    if rope["rope_type"] != "yarn" or rope["factor"] is None:
        return length
    # Model cards tell users to add YaRN and to leave max_position_embeddings alone.
    return max(length, int(rope["factor"] * rope["original_max_position_embeddings"]))


def _head_dim(hf: Any) -> int:
    head_dim: int | None = getattr(hf, "head_dim", None)
    return head_dim or int(hf.hidden_size // hf.num_attention_heads)


def _flag(hf: Any, rule: bool | str) -> bool:
    return bool(getattr(hf, rule)) if isinstance(rule, str) else rule


def _sliding_window(hf: Any, family: Family) -> int | None:
    if family.sliding_window == "none":
        return None
    if family.sliding_window == "typed" and "sliding_attention" not in hf.layer_types:
        return None
    window: int | None = hf.sliding_window
    return window
