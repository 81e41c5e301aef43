"""Medusa-1 and the EAGLE-style head on disk: as strict as with adapters, in fields of their own."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo.config import HEAD_KINDS, EagleConfig, MedusaConfig
from kangaroo.models.adapter_io import DraftModule, load_adapter, load_drafter, save_adapter
from kangaroo.models.eagle import Eagle
from kangaroo.models.families import model_config
from kangaroo.models.fingerprint import fingerprint
from kangaroo.models.medusa import Medusa
from tests.factories import edit_json, edit_tensors, make_checkpoint
from tests.models.conftest import one_line

CPU = torch.device("cpu")
CONFIG, TENSORS = "config.json", "adapter.safetensors"


def fresh(kind: str, target: Path) -> DraftModule:
    config = model_config(target)
    if kind == "medusa":
        module: DraftModule = Medusa(MedusaConfig.for_target(config, 2))
    else:
        module = Eagle(EagleConfig.for_target(config))
    for n, p in enumerate(module.parameters()):
        torch.nn.init.constant_(p, n + 1.0)
    return module


def save(kind: str, target: Path, path: Path) -> Path:
    module = fresh(kind, target)
    save_adapter(path, module, model_config(target), fingerprint(target, 1))
    return path


@pytest.mark.parametrize("family", ["llama-gqa-llama3", "qwen2", "qwen3"])
@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_what_is_saved_comes_back(tmp_path: Path, kind: str, family: str) -> None:
    target = make_checkpoint(tmp_path / "target", family)
    path = save(kind, target, tmp_path / "heads")
    expected = fresh(kind, target)
    loaded = load_drafter(path, torch.bfloat16, CPU, fingerprint(target, 1))
    assert loaded.config == expected.config
    assert not any(p.requires_grad for p in loaded.parameters())
    tensors = dict(loaded.named_parameters())
    assert tensors.keys() == dict(expected.named_parameters()).keys()
    for name, p in expected.named_parameters():
        assert torch.equal(tensors[name], p.to(torch.bfloat16)), name
    if kind == "eagle":
        assert ("qkv_bias" in tensors) == (family == "qwen2")
        assert ("q_norm" in tensors) == ("k_norm" in tensors) == (family == "qwen3")
    wanted = re.escape(f"{path / CONFIG}: adapter: kind: expected paper or deep_prefix, got {kind}")
    with pytest.raises(ValueError, match=wanted):
        load_adapter(path, torch.float32, CPU)


@pytest.fixture
def saved(tmp_path: Path, pristine: dict[str, Path]) -> Callable[[str], Path]:
    return lambda kind: save(kind, pristine["whole"], tmp_path / "heads")


BAD_CONFIGS: list[tuple[str, dict[str, Any], str]] = [
    ("medusa", {"kind": "hydra"}, "kind: expected one of paper, deep_prefix, medusa, eagle, got"),
    ("medusa", {"kind": "eagle"}, "missing field head_dim"),
    ("medusa", {"kind": ...}, "missing field"),
    ("medusa", {"exit_layer": 1}, "unknown field exit_layer"),
    ("medusa", {"vocab_size": 64}, "vocab_size: expected the target's"),
    ("medusa", {"hidden_size": 128}, "hidden_size: expected the target's 64, got 128"),
    ("medusa", {"num_draft_heads": 0}, "num_draft_heads: expected at least 1, got 0"),
    ("medusa", {"max_depth": 3}, "max_depth: expected at most 2, the number of draft heads, got 3"),
    ("medusa", {"confidence": 2.0}, "confidence"),
    ("eagle", {"rms_norm_eps": 1e-5}, "unknown field rms_norm_eps"),
    ("eagle", {"num_kv_heads": 4}, "num_kv_heads: expected the target's 2, got 4"),
    ("eagle", {"num_heads": 2}, "num_heads: expected the target's 4, got 2"),
    ("eagle", {"head_dim": 16}, "head_dim: expected the target's 32, got 16"),
    ("eagle", {"intermediate_size": 0}, "intermediate_size: expected at least 1, got 0"),
    ("eagle", {"qkv_bias": 1}, "qkv_bias: expected bool, got 1"),
    ("eagle", {"max_depth": True}, "max_depth: expected int, got True"),
    ("eagle", {"max_depth": 64}, "max_depth: expected 0 to 63, got 64"),
]


@pytest.mark.parametrize(("kind", "fields", "message"), BAD_CONFIGS)
def test_wrong_config(
    saved: Callable[[str], Path], kind: str, fields: dict[str, Any], message: str
) -> None:
    path = saved(kind)
    content = json.loads((path / CONFIG).read_text())["adapter"] | fields
    edit_json(path / CONFIG, adapter={n: v for n, v in content.items() if v is not ...})
    with pytest.raises(ValueError, match=one_line(str(path / CONFIG), message)):
        load_drafter(path, torch.float32, CPU)


BAD_TENSORS: list[tuple[str, Callable[[dict[str, Tensor]], object], str]] = [
    ("medusa", lambda t: t.pop("heads.1.head"), "missing tensor heads.1.head"),
    ("medusa", lambda t: t.update(strange=torch.ones(1)), "surplus tensor strange"),
    (
        "medusa",
        lambda t: t.update({"heads.0.weight": t["heads.0.weight"][1:]}),
        "tensor heads.0.weight: expected shape (64, 64), got (63, 64)",
    ),
    ("medusa", lambda t: t["heads.0.bias"].add_(1), "corrupt"),
    ("eagle", lambda t: t.pop("state_fc"), "missing tensor state_fc"),
    ("eagle", lambda t: t.update(fc=torch.ones(64, 128)), "surplus tensor fc"),
    ("eagle", lambda t: t.update(o=t["o"][1:]), "tensor o: expected shape (64, 128), got"),
    ("eagle", lambda t: t.update(down=t["down"].long()), "tensor down: expected one of"),
]


@pytest.mark.parametrize(("kind", "edit", "message"), BAD_TENSORS)
def test_wrong_tensors(
    saved: Callable[[str], Path],
    kind: str,
    edit: Callable[[dict[str, Tensor]], object],
    message: str,
) -> None:
    path = saved(kind)
    edit_tensors(path / TENSORS, edit)
    with pytest.raises(ValueError, match=one_line(str(path / TENSORS), message)):
        load_drafter(path, torch.float32, CPU)
