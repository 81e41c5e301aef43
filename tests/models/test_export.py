"""Exports hold the engine's own tensors and numbers, and replace nothing but exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kangaroo.config import ADAPTER_KINDS, AdapterConfig, AdapterKind
from kangaroo.models import export
from kangaroo.models.adapter import Adapter
from kangaroo.models.fingerprint import fingerprint
from kangaroo.models.llama import Llama
from tests.engines import load
from tests.models.conftest import one_line

EXIT_LAYER = 2


def save(out: Path, model: Llama, adapter: Adapter | None = None, **changes: Any) -> dict[str, str]:
    """Export, and return the metadata."""
    options = {"target_fingerprint": {"norm": "abc"}, "eos_ids": {7, 2}}
    export.save_export(out, model, adapter, **(options | changes))
    with safe_open(out, framework="pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata


def fresh(model: Llama, kind: AdapterKind, **changes: Any) -> Adapter:
    config = replace(AdapterConfig.for_target(model.config, kind, EXIT_LAYER), **changes)
    adapter = Adapter(config)
    adapter.reset(seed=0)
    return adapter.to(model.weights.norm.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("name", ["whole", "tied"])
def test_tensors_are_the_engines(
    tmp_path: Path, pristine: dict[str, Path], name: str, kind: AdapterKind, dtype: torch.dtype
) -> None:
    model = load(pristine[name], dtype=dtype)
    adapter = fresh(model, kind)
    save(tmp_path / "file", model, adapter)
    tensors = load_file(tmp_path / "file")
    weights = model.weights
    expected = {
        "embed": weights.embed,
        "norm": weights.norm,
        "rope": model.rope[:, : model.config.max_seq_len],
    }
    if name == "whole":
        expected["lm_head"] = weights.lm_head
    for number, layer in enumerate(weights.layers):
        for part in (
            *("input_norm", "qkv", "qkv_bias", "q_norm", "k_norm"),
            *("o", "o_bias", "post_norm", "gate_up", "down"),
        ):
            if (tensor := getattr(layer, part)) is not None:
                expected[f"layers.{number}.{part}"] = tensor
    expected |= {f"adapter.{part}": p for part, p in adapter.named_parameters()}
    assert tensors.keys() == expected.keys()
    for part, tensor in expected.items():
        assert tensors[part].dtype == (torch.float32 if part == "rope" else dtype)
        assert torch.equal(tensors[part], tensor)


def test_numbers_read_back(tmp_path: Path, pristine: dict[str, Path]) -> None:
    """Floats as the same floats; an adapter's own geometry as its own."""
    model = load(pristine["whole"])
    config = replace(model.config, rms_norm_eps=0.1 + 0.2)
    model = Llama(config, model.weights, model.kernels)
    adapter = fresh(model, "paper", num_kv_heads=1, rms_norm_eps=1e-6, max_depth=3, confidence=0.7)
    parts = fingerprint(pristine["whole"], EXIT_LAYER)
    metadata = save(tmp_path / "file", model, adapter, target_fingerprint=parts)
    assert float(metadata["rms_norm_eps"]) == 0.1 + 0.2
    assert float(metadata["adapter_rms_norm_eps"]) == 1e-6
    assert float(metadata["confidence"]) == 0.7
    for name, value in {
        "format": "kangaroo",
        "format_version": "1",
        "dtype": "float32",
        "adapter_kind": "paper",
        "eos_token_ids": "2,7",
        "adapter_num_kv_heads": "1",
        "exit_layer": str(EXIT_LAYER),
        "max_depth": "3",
        "max_seq_len": str(config.max_seq_len),
        "num_layers": "4",
    }.items():
        assert metadata[name] == value
    assert all(metadata[f"fingerprint.{part}"] == value for part, value in parts.items())


def test_a_sliding_window_bounds_the_context(tmp_path: Path, pristine: dict[str, Path]) -> None:
    model = load(pristine["tied"])
    windowed = Llama(replace(model.config, sliding_window=48), model.weights, model.kernels)
    assert save(tmp_path / "file", windowed)["max_seq_len"] == "48"
    assert torch.equal(load_file(tmp_path / "file")["rope"], model.rope[:, :48])


def test_replaces_exports_and_nothing_else(tmp_path: Path, pristine: dict[str, Path]) -> None:
    model = load(pristine["tied"])
    out = tmp_path / "file"
    assert save(out, model)["adapter_kind"] == "none"
    assert save(out, model, fresh(model, "paper"))["adapter_kind"] == "paper"
    save_file({"mine": torch.ones(1)}, out)
    with pytest.raises(ValueError, match=one_line(str(out), "not touched")):
        save(out, model)
    assert load_file(out).keys() == {"mine"}
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, pristine: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(pristine["tied"])
    save(tmp_path / "file", model)
    before = (tmp_path / "file").read_bytes()

    def full(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(export, "save_file", full)
    with pytest.raises(OSError, match="no space left"):
        save(tmp_path / "file", model)
    assert (tmp_path / "file").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_float16_is_not_exported(tmp_path: Path, pristine: dict[str, Path]) -> None:
    model = load(pristine["tied"], dtype=torch.float16)
    with pytest.raises(ValueError, match="expected one of float32, bfloat16"):
        save(tmp_path / "file", model)
    assert not list(tmp_path.iterdir())
