"""config.json: what it becomes, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from kangaroo.models.families import model_config
from kangaroo_kernels import UnsupportedError
from tests.factories import SHAPE, YARN_ROPE

MIXED = ["full_attention", "full_attention", "sliding_attention", "sliding_attention"]


def write(path: Path, model_type: str = "llama", **fields: Any) -> Path:
    (path / "config.json").write_text(json.dumps(SHAPE | {"model_type": model_type} | fields))
    return path


def test_reads_the_geometry(tmp_path: Path) -> None:
    config = model_config(write(tmp_path, "qwen3", head_dim=32, rope_theta=1e6))
    assert (config.family, config.vocab_size, config.hidden_size) == ("qwen3", 263, 64)
    assert (config.num_layers, config.num_heads, config.num_kv_heads) == (4, 4, 2)
    assert (config.intermediate_size, config.head_dim, config.max_seq_len) == (112, 32, 256)
    assert (config.rms_norm_eps, config.rope_scale, len(config.rope_inv_freq)) == (1e-5, 1.0, 16)
    assert config.rope_inv_freq[1] == pytest.approx(1e6 ** (-1 / 16))


def test_absent_optional_fields_take_the_family_s_defaults(tmp_path: Path) -> None:
    config = model_config(write(tmp_path, num_key_value_heads=None, head_dim=None))
    assert (config.num_kv_heads, config.head_dim) == (4, 16)


@pytest.mark.parametrize(
    ("model_type", "fields", "biases_and_norm"),
    [
        ("llama", {}, (False, False, False)),
        ("llama", {"attention_bias": True}, (True, True, False)),
        ("mistral", {"attention_bias": True}, (False, False, False)),
        ("qwen2", {}, (True, False, False)),
        ("qwen3", {}, (False, False, True)),
        ("qwen3", {"attention_bias": True}, (True, True, True)),
    ],
)
def test_biases_and_norms(
    tmp_path: Path, model_type: str, fields: dict[str, Any], biases_and_norm: tuple[bool, ...]
) -> None:
    config = model_config(write(tmp_path, model_type, **fields))
    assert (config.qkv_bias, config.o_bias, config.qk_norm) == biases_and_norm


@pytest.mark.parametrize(
    ("model_type", "fields", "window"),
    [
        ("llama", {"sliding_window": 32}, None),
        ("mistral", {"sliding_window": 32}, 32),
        ("mistral", {"sliding_window": None}, None),
        ("mistral", {}, 4096),
        ("qwen2", {"sliding_window": 32}, None),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 2}, 32),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 4}, None),
        ("qwen3", {"sliding_window": 32, "use_sliding_window": True, "layer_types": MIXED}, 32),
        ("qwen3", {"sliding_window": 32, "use_sliding_window": False, "layer_types": MIXED}, None),
    ],
)
def test_sliding_window(
    tmp_path: Path, model_type: str, fields: dict[str, Any], window: int | None
) -> None:
    assert model_config(write(tmp_path, model_type, **fields)).sliding_window == window


def test_old_and_new_spelling_of_rope_agree(tmp_path: Path) -> None:
    new = model_config(write(tmp_path, rope_parameters=YARN_ROPE))
    scaling = {"type" if name == "rope_type" else name: value for name, value in YARN_ROPE.items()}
    theta = scaling.pop("rope_theta")
    assert model_config(write(tmp_path, rope_scaling=scaling, rope_theta=theta)) == new


def test_yarn_reaches_as_far_as_it_scales(tmp_path: Path) -> None:
    assert model_config(write(tmp_path, rope_parameters=YARN_ROPE)).max_seq_len == 256
    left_alone = write(tmp_path, rope_parameters=YARN_ROPE, max_position_embeddings=64)
    assert model_config(left_alone).max_seq_len == 256


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "gpt2"}, "model_type: 'gpt2' .*llama, mistral, qwen2, qwen3"),
        ({"model_type": "no-such"}, "model_type: 'no-such' .*llama, mistral, qwen2, qwen3"),
        ({"model_type": ["llama"]}, "model_type: .*supported: llama"),
        ({"model_type": None}, "model_type: None .*supported: llama"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'"),
        ({"mlp_bias": True}, "mlp_bias: True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type: 'dynamic'"),
        ({"rope_scaling": {"rope_type": "no-such", "factor": 2.0}}, "rope_type: 'no-such'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: 0.5"),
    ],
)
def test_refuses_what_it_cannot_run(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^[^\n]*config.json: [^\n]*{message}[^\n]*$"):
        model_config(write(tmp_path, **fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": "64"}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected at least 1, got 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor"),
        ({"head_dim": 15}, "head_dim.*15"),
        ({"head_dim": -2}, "head_dim.*-2"),
        ({"hidden_size": 66}, "66"),
        ({"rope_theta": -1.0}, "rope_theta: expected a positive number, got -1.0"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
    ],
)
def test_invalid_fields(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^[^\n]*config.json: [^\n]*{message}[^\n]*$"):
        model_config(write(tmp_path, **fields))


@pytest.mark.parametrize("text", ["", "{", "[1]", '"llama"', "\x00"])
def test_invalid_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: "):
        model_config(tmp_path)


def test_missing_config(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json: cannot be read: No such file"):
        model_config(tmp_path)
