"""Adapters: what is saved comes back, and nothing else does."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo.config import AdapterConfig, AdapterKind
from kangaroo.models.adapter import Adapter
from kangaroo.models.adapter_io import init_adapter, load_adapter, save_adapter, save_rule
from kangaroo.models.families import model_config
from kangaroo.models.fingerprint import fingerprint
from tests.factories import edit_json, edit_tensors
from tests.models.conftest import Copy, one_line

CPU, EXIT_LAYER = torch.device("cpu"), 2
CONFIG, TENSORS = "config.json", "adapter.safetensors"


@pytest.fixture
def saved(tmp_path: Path, pristine: dict[str, Path]) -> Path:
    """A fresh deep_prefix adapter of the pristine target."""
    init_adapter(pristine["whole"], EXIT_LAYER, tmp_path / "adapter", "deep_prefix", seed=3)
    return tmp_path / "adapter"


def load(path: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Adapter:
    return load_adapter(path, dtype, CPU, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["paper", "deep_prefix"])
def test_round_trip_is_bitwise(
    tmp_path: Path, pristine: dict[str, Path], kind: AdapterKind, dtype: torch.dtype
) -> None:
    target = model_config(pristine["whole"])
    adapter = Adapter(AdapterConfig.for_target(target, kind, EXIT_LAYER))
    adapter.reset(seed=1)
    adapter.to(dtype)
    parts = fingerprint(pristine["whole"], EXIT_LAYER)
    save_adapter(tmp_path / "new" / "adapter", adapter, target, parts)
    loaded = load(tmp_path / "new" / "adapter", dtype, target_fingerprint=parts)
    assert loaded.config == adapter.config
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    expected = dict(adapter.named_parameters())
    assert {name for name, _ in loaded.named_parameters()} == expected.keys()
    for name, p in loaded.named_parameters():
        assert p.dtype == dtype
        assert p.is_contiguous()
        assert torch.equal(p, expected[name])
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["adapter"]


def test_other_files_are_there_whenever_an_adapter_is(
    saved: Path, pristine: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the program ends as soon as the new one has its name."""
    (saved / "NOTES.md").write_text("mine")
    (saved / "figures").mkdir()
    (saved / "figures" / "loss.txt").write_text("1.5")
    before, moved, move = load(saved), list[Path](), Path.rename

    def stopped(file: Path, to: Path) -> Path:
        moved.append(move(file, to))
        if len(moved) == 2:
            raise KeyboardInterrupt
        return moved[-1]

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        init_adapter(pristine["whole"], EXIT_LAYER, saved, "deep_prefix", seed=4)
    assert not torch.equal(load(saved).qkv, before.qkv)
    assert (saved / "NOTES.md").read_text() == "mine"
    assert (saved / "figures" / "loss.txt").read_text() == "1.5"
    assert len(list(saved.iterdir())) == 4


def test_a_rule_is_saved_alone(saved: Path) -> None:
    """Everything else stays as it is, and all of it if the rule cannot be."""
    before, content = load(saved), json.loads((saved / CONFIG).read_text())
    save_rule(saved, max_depth=3, confidence=0.25)
    after = load(saved)
    assert after.config == replace(before.config, max_depth=3, confidence=0.25)
    assert torch.equal(after.qkv, before.qkv)
    content["adapter"] |= {"max_depth": 3, "confidence": 0.25}
    assert json.loads((saved / CONFIG).read_text()) == content
    for max_depth, confidence in ((64, 0.5), (3, 1.5)):
        with pytest.raises(ValueError, match="^(max_depth|confidence): expected 0 to "):
            save_rule(saved, max_depth, confidence)
    assert load(saved).config == after.config
    assert sorted(file.name for file in saved.iterdir()) == [TENSORS, CONFIG]


def test_init_is_reset(saved: Path, pristine: dict[str, Path]) -> None:
    target = model_config(pristine["whole"])
    expected = Adapter(AdapterConfig.for_target(target, "deep_prefix", EXIT_LAYER))
    expected.reset(seed=3)
    for name, p in load(saved).named_parameters():
        assert torch.equal(p, expected.get_parameter(name))
    with pytest.raises(ValueError, match="exit_layer: expected 1 to 3, got 4"):
        init_adapter(pristine["whole"], 4, saved, "paper", seed=0)


def test_converts_dtype(saved: Path) -> None:
    half = load(saved, torch.bfloat16)
    for name, p in load(saved).named_parameters():
        assert torch.equal(half.get_parameter(name), p.to(torch.bfloat16))


def test_saving_replaces_an_adapter_and_nothing_else(
    tmp_path: Path, saved: Path, pristine: dict[str, Path]
) -> None:
    (saved / "notes.txt").write_text("mine")
    init_adapter(pristine["whole"], 1, saved, "paper", seed=0)
    assert load(saved).config.kind == "paper"
    assert (saved / "notes.txt").read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adapter"]
    (tmp_path / "empty").mkdir()
    init_adapter(pristine["whole"], 1, tmp_path / "empty", "paper", seed=0)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / CONFIG).write_text("{}")
    for foreign in ("file", "foreign"):
        with pytest.raises(ValueError, match=f"{foreign}: exists and is not an adapter folder"):
            init_adapter(pristine["whole"], 1, tmp_path / foreign, "paper", seed=0)
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "foreign" / CONFIG).read_text() == "{}"


def test_failed_save_leaves_what_was_there(
    tmp_path: Path, saved: Path, pristine: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def failing_rename(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise OSError("no space left")
        return rename(self, to)

    def failing_save(*_: object, **__: object) -> None:
        raise OSError("no space left")

    for where, failure in (
        ("kangaroo.models.adapter_io.save_file", failing_save),
        ("pathlib.Path.rename", failing_rename),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, failure)
            with pytest.raises(OSError, match="no space left"):
                init_adapter(pristine["whole"], 1, saved, "paper", seed=0)
    assert load(saved).config.kind == "deep_prefix"
    assert [file.name for file in tmp_path.iterdir()] == ["adapter"]


def test_another_target(copy: Copy, saved: Path) -> None:
    path = copy("whole")
    edit_tensors(path / "model.safetensors", lambda t: t["lm_head.weight"][0].zero_())
    (path / "tokenizer.json").write_text("{}")
    theirs = json.loads((saved / CONFIG).read_text())["target_fingerprint"]
    ours = fingerprint(path, EXIT_LAYER)
    head = f"head: adapter {theirs['head'][:12]}, target {ours['head'][:12]}"
    tokenizer = f"tokenizer: adapter none, target {ours['tokenizer'][:12]}"
    expected = f"{saved / CONFIG}: made for another target; {head}; {tokenizer}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        load(saved, target_fingerprint=ours)


def refused(path: Path, *messages: str) -> None:
    with pytest.raises(ValueError, match=one_line(*messages)):
        load(path)


@pytest.mark.parametrize(
    ("group", "fields", "message"),
    [
        ("", {"format": "other"}, "format: expected 'kangaroo-adapter', got 'other'"),
        ("", {"version": 2}, "version: expected 1, got 2"),
        ("", {"strange": 1}, "unknown field strange"),
        ("", {"sha256": ...}, "missing field sha256"),
        ("", {"adapter": []}, "adapter: expected dict"),
        ("adapter", {"kind": "other"}, "kind: expected one of"),
        ("adapter", {"kind": 1}, "kind: expected str, got 1"),
        ("adapter", {"strange": 1}, "unknown field strange"),
        ("adapter", {"exit_layer": ...}, "missing field exit_layer"),
        ("adapter", {"exit_layer": "2"}, "exit_layer: expected int, got '2'"),
        ("adapter", {"exit_layer": True}, "exit_layer: expected int, got True"),
        ("adapter", {"exit_layer": 4}, "exit_layer: expected 1 to 3, got 4"),
        ("adapter", {"exit_layer": 0}, "exit_layer: expected at least 1, got 0"),
        ("adapter", {"hidden_size": 128}, "hidden_size: expected the target's 64, got 128"),
        ("adapter", {"hidden_size": -64}, "hidden_size"),
        ("adapter", {"head_dim": 16}, "head_dim: expected the target's 32, got 16"),
        ("adapter", {"num_kv_heads": 3}, "num_kv_heads: expected a divisor of 4, got 3"),
        ("adapter", {"num_kv_heads": 0}, "num_kv_heads"),
        ("adapter", {"num_heads": 0}, "num_heads: expected at least 1, got 0"),
        ("adapter", {"confidence": 2.0}, "confidence"),
        ("adapter", {"confidence": None}, "confidence: expected float, got None"),
        ("target", {"family": ...}, "missing field family"),
        ("target_fingerprint", {"norm": ...}, "missing field norm"),
        ("target_fingerprint", {"norm": 5}, "norm: expected str, got 5"),
    ],
)
def test_wrong_config(saved: Path, group: str, fields: dict[str, Any], message: str) -> None:
    content = json.loads((saved / CONFIG).read_text())
    if group:
        changed = {n: v for n, v in (content[group] | fields).items() if v is not ...}
        fields = {group: changed}
    edit_json(saved / CONFIG, **fields)
    refused(saved, str(saved / CONFIG), message)


def test_int_where_a_float_belongs(saved: Path) -> None:
    content = json.loads((saved / CONFIG).read_text())
    edit_json(saved / CONFIG, adapter=content["adapter"] | {"confidence": 1})
    assert load(saved).config.confidence == 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("norm"), "missing tensor norm"),
        (lambda t: t.pop("deep_kv"), "missing tensor deep_kv"),
        (lambda t: t.update(strange=torch.ones(1)), "surplus tensor strange"),
        (lambda t: t.update(o=t["o"][1:]), "tensor o: expected shape (64, 128), got (63, 128)"),
        (lambda t: t.update(o=t["o"].long()), "tensor o: expected one of"),
        (lambda t: t["norm"].add_(1e-6), "corrupt"),
    ],
)
def test_wrong_tensors(
    saved: Path, edit: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    edit_tensors(saved / TENSORS, edit)
    refused(saved, str(saved / TENSORS), message)


def test_truncated_or_absent(saved: Path) -> None:
    (saved / TENSORS).write_bytes((saved / TENSORS).read_bytes()[:-4])
    refused(saved, f"{saved / TENSORS}: truncated or corrupt")
    (saved / TENSORS).unlink()
    refused(saved, f"{saved / TENSORS}: ")
    (saved / CONFIG).unlink()
    refused(saved, f"{saved / CONFIG}: ")
