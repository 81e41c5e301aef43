"""A fingerprint changes exactly where the target does."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kangaroo.models.fingerprint import PARTS, fingerprint
from tests.factories import edit_json, edit_tensors, make_checkpoint
from tests.models.conftest import Copy

EXIT_LAYER = 2
SINGLE = "model.safetensors"


def changed(path: Path, other: Path) -> set[str]:
    before, after = fingerprint(path, EXIT_LAYER), fingerprint(other, EXIT_LAYER)
    return {part for part in PARTS if before[part] != after[part]}


def test_parts_are_hashes(pristine: dict[str, Path]) -> None:
    parts = fingerprint(pristine["whole"], EXIT_LAYER)
    assert tuple(parts) == PARTS
    assert parts.pop("tokenizer") == "none"
    assert all(len(value) == 64 and int(value, 16) for value in parts.values())
    assert len(set(parts.values())) == len(parts)


def test_files_do_not_matter(pristine: dict[str, Path]) -> None:
    assert changed(pristine["whole"], pristine["sharded"]) == set()


def nudge(name: str) -> Callable[[dict[str, Tensor]], None]:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[-1] += 1e-6

    return edit


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("model.embed_tokens.weight", {"embeddings"}),
        ("lm_head.weight", {"head"}),
        ("model.norm.weight", {"norm"}),
        ("model.layers.0.input_layernorm.weight", {"shallow_layers"}),
        ("model.layers.1.self_attn.k_proj.bias", {"shallow_layers"}),
        ("model.layers.1.mlp.down_proj.weight", {"shallow_layers"}),
        ("model.layers.2.mlp.down_proj.weight", set()),
        ("model.layers.3.input_layernorm.weight", set()),
    ],
)
def test_every_tensor_is_in_one_part(
    copy: Copy, pristine: dict[str, Path], name: str, parts: set[str]
) -> None:
    path = copy("whole")
    edit_tensors(path / SINGLE, nudge(name))
    assert changed(path, pristine["whole"]) == parts


def test_tied_embedding_is_the_head(copy: Copy, pristine: dict[str, Path]) -> None:
    path = copy("tied")
    edit_tensors(path / SINGLE, nudge("model.embed_tokens.weight"))
    assert changed(path, pristine["tied"]) == {"embeddings", "head"}


def test_layers_that_trade_places(copy: Copy, pristine: dict[str, Path]) -> None:
    path = copy("whole")

    def swap(tensors: dict[str, Tensor]) -> None:
        a, b = (f"model.layers.{layer}.input_layernorm.weight" for layer in (0, 1))
        tensors[a], tensors[b] = tensors[b].clone(), tensors[a].clone()

    edit_tensors(path / SINGLE, swap)
    assert changed(path, pristine["whole"]) == {"shallow_layers"}


def test_dtype_counts(tmp_path: Path, pristine: dict[str, Path]) -> None:
    path = make_checkpoint(
        tmp_path, "qwen3-bias-tied", tie_word_embeddings=False, dtype=torch.bfloat16
    )
    assert changed(path, pristine["whole"]) == {"embeddings", "head", "norm", "shallow_layers"}


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, {"config"}),
        ({"rope_parameters": ..., "rope_theta": 10000}, set()),
        (
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
            {"config"},
        ),
        ({"rms_norm_eps": 1e-6}, {"config"}),
        ({"eos_token_id": 5, "max_position_embeddings": 512, "dtype": "bfloat16"}, set()),
        ({"sliding_window": 64, "use_sliding_window": True, "layer_types": ...}, set()),
    ],
)
def test_config(
    copy: Copy, pristine: dict[str, Path], fields: dict[str, object], parts: set[str]
) -> None:
    path = copy("whole")
    edit_json(path / "config.json", **fields)
    assert changed(path, pristine["whole"]) == parts


def test_tokenizer(copy: Copy) -> None:
    path, other = copy("whole"), copy("sharded")
    for folder in (path, other):
        (folder / "tokenizer.model").write_bytes(b"pieces")
    assert fingerprint(path, EXIT_LAYER)["tokenizer"] != "none"
    assert changed(path, other) == set()
    (path / "tokenizer.model").write_bytes(b"other pieces")
    assert changed(path, other) == {"tokenizer"}
    for folder in (path, other):
        (folder / "tokenizer.json").write_text("{}")
    assert changed(path, other) == set()  # tokenizer.json rules
    (path / "tokenizer.json").write_text("{ }")
    assert changed(path, other) == {"tokenizer"}


def test_exit_layer(pristine: dict[str, Path]) -> None:
    two, three = (fingerprint(pristine["whole"], exit_layer) for exit_layer in (2, 3))
    assert {part for part in PARTS if two[part] != three[part]} == {"shallow_layers"}
    for outside in (0, 4):
        with pytest.raises(ValueError, match=f"exit_layer: expected 1 to 3, got {outside}"):
            fingerprint(pristine["whole"], outside)


def test_damaged_target(copy: Copy) -> None:
    path = copy("whole")
    edit_tensors(path / SINGLE, lambda t: t.update(strange=torch.ones(1)))
    with pytest.raises(ValueError, match="surplus tensor strange"):
        fingerprint(path, EXIT_LAYER)
