"""Folders, names, devices and dtypes: found, or refused with what would do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kangaroo import KangarooForCausalLM
from kangaroo.engine.loading import (
    TINY_PY,
    TINY_PY_ADAPTER,
    adapter_home,
    adapter_path,
    load_draft_model,
    load_engine,
    target_path,
    torch_device,
    torch_dtype,
)
from kangaroo_kernels import UnsupportedError
from tests.factories import edit_json, make_checkpoint
from tests.folders import make_folder

CPU = torch.device("cpu")


def test_adapters_by_folder_by_name_or_not_at_all(folder: Path) -> None:
    assert adapter_path(folder, folder / "adapters" / "paper") == folder / "adapters" / "paper"
    assert adapter_path(folder, "paper") == folder / "adapters" / "paper"
    assert adapter_path(folder, None) is None
    with pytest.raises(ValueError, match="^adapter: no such folder: none; .* deep_prefix, paper$"):
        adapter_path(folder, "none")


def test_the_default_is_tiny_pys_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of its name in the current directory is meant by who says so, and by no one else."""
    (tmp_path / TINY_PY_ADAPTER).mkdir()
    monkeypatch.chdir(tmp_path)
    own = target_path(TINY_PY) / "adapters" / TINY_PY_ADAPTER
    assert adapter_home(TINY_PY, None) == own
    assert own.is_absolute()
    assert adapter_home(TINY_PY, TINY_PY_ADAPTER) == Path(TINY_PY_ADAPTER)
    assert adapter_home(TINY_PY, "paper") == own.with_name("paper")
    assert adapter_home(folder, None) is None


def test_targets_are_folders() -> None:
    assert target_path(".") == Path(".")
    with pytest.raises(ValueError, match="^some/model: no such folder; .* hf download"):
        target_path("some/model")


def test_the_adapter_must_be_the_targets_own(folder: Path, tmp_path: Path) -> None:
    other = make_folder(tmp_path, seed=1)
    with pytest.raises(ValueError, match="made for another target"):
        load_engine(folder, other / "adapters" / "paper", None, "cpu", "reference")


def test_what_is_loaded(folder: Path) -> None:
    path, model, adapter = load_engine(folder, "deep_prefix", "bfloat16", "cpu", "reference")
    assert path == folder
    assert adapter is not None
    assert adapter.config.kind == "deep_prefix"
    assert model.weights.norm.dtype == adapter.norm.dtype == torch.bfloat16


def test_dtypes(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama", dtype=torch.bfloat16)
    assert torch_dtype(None, CPU, tmp_path) == torch.float32
    assert torch_dtype("auto", CPU, tmp_path) == torch.bfloat16
    assert torch_dtype(None, torch.device("meta"), tmp_path) == torch.bfloat16
    assert torch_dtype("float16", CPU, tmp_path) == torch.float16
    assert torch_dtype(torch.float16, CPU, tmp_path) == torch.float16
    for dtype in ("float64", torch.int8, "odd"):
        with pytest.raises(ValueError, match="^dtype: expected 'auto' or one of float32, "):
            torch_dtype(dtype, CPU, tmp_path)
    edit_json(tmp_path / "config.json", dtype=...)
    assert torch_dtype("auto", CPU, tmp_path) == torch.float32


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch_device("cpu") == CPU
    with pytest.raises(
        ValueError, match="^device: expected one such as 'cpu' or 'cuda', got 'odd'$"
    ):
        torch_device("odd")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="^device: 'cuda:1' is not there"):
        torch_device("cuda:1")


def test_backends(folder: Path) -> None:
    with pytest.raises(ValueError, match="^backend: expected 'auto' or one of"):
        load_engine(folder, None, None, "cpu", "odd")
    with pytest.raises(UnsupportedError, match="native cannot run on"):
        load_engine(folder, None, "float16", "cpu", "native")


def test_without_a_tokenizer(tmp_path: Path) -> None:
    """Ids still decode; who asks for the tokenizer is told."""
    folder = make_folder(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    llm = KangarooForCausalLM.from_pretrained(folder)
    assert llm.generate([5], max_new_tokens=2, max_depth=0, eos_token_id=None).shape == (1, 3)
    with pytest.raises(ValueError, match="no usable tokenizer"):
        _ = llm.tokenizer


def test_the_package_is_light_until_it_is_used() -> None:
    code = "import kangaroo, sys; assert not {'torch', 'transformers'} & set(sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    with pytest.raises(AttributeError, match="no attribute 'odd'"):
        getattr(sys.modules["kangaroo"], "odd")  # noqa: B009


def test_a_draft_model_has_the_targets_tokens(folder: Path, tmp_path: Path) -> None:
    """By its tokenizer; its family and its sizes are its own."""
    target = load_engine(folder, None, "bfloat16", "cpu", "auto")[1]
    with pytest.raises(ValueError, match=f"^{tmp_path}: its tokenizer is not that of the target"):
        load_draft_model(make_checkpoint(tmp_path, "qwen3", vocab_size=263), folder, target)
    shutil.copy(folder / "tokenizer.json", tmp_path)
    model = load_draft_model(tmp_path, folder, target)
    assert model.config.family == "qwen3"
    assert model.weights.norm.dtype == torch.bfloat16
