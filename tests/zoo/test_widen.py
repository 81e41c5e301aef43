"""`python -m kangaroo.zoo.widen`: a folder as any other, which says what the small model says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS
from kangaroo.models.weights import EMBED, open_checkpoint
from kangaroo.zoo.shapes import TINY_PY
from kangaroo.zoo.widen import main
from tests.folders import make_folder
from tests.zoo.small import WAYS, say, twins

PROMPT = "def add(a, b):\n"
FACTS = ("--shape", "tiny-py", "--dtype", "float32", "--shallow-layers", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    return make_folder(tmp_path_factory.mktemp("folder"), **heads)


def widen(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def widened_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and what was said about it."""
    out = tmp_path_factory.mktemp("widened") / "out"
    result = widen(folder, out, *FACTS)
    assert result.exit_code == 0, result.output
    return out, result.output


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_the_folder_is_the_small_model(
    folder: Path, widened_folder: tuple[Path, str], kind: str
) -> None:
    out, _ = widened_folder
    small = KangarooForCausalLM.from_pretrained(folder, kind)
    wide = KangarooForCausalLM.from_pretrained(out, kind)
    ids = small.tokenizer(PROMPT)["input_ids"]
    assert wide.tokenizer(PROMPT)["input_ids"] == ids
    assert wide.adapter is not None
    assert wide.adapter.config.exit_layer == 4
    for options in WAYS.values():
        ours, theirs = (say(llm, ids, 16, **options) for llm in (small, wide))
        assert theirs.tokens == ours.tokens
        drafted = (theirs.num_drafted, theirs.num_accepted)
        assert drafted == (ours.num_drafted, ours.num_accepted)


def test_in_transformers_too(folder: Path, widened_folder: tuple[Path, str]) -> None:
    ids = torch.arange(2, 42)[None]
    small, wide = (
        _transformers(path)(ids, output_hidden_states=True) for path in (folder, widened_folder[0])
    )
    assert torch.equal(small.logits.argmax(-1), wide.logits.argmax(-1))
    assert (wide.logits.softmax(-1)[..., 263:] == 0).all()
    for state in wide.hidden_states[:-1]:  # the last has gone through the final norm
        assert (state[..., 33:] == 0).all()


def _transformers(path: Path) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def test_disk_and_memory_hold_the_same(folder: Path, widened_folder: tuple[Path, str]) -> None:
    out, _ = widened_folder
    stored = KangarooForCausalLM.from_pretrained(out, "deep_prefix")
    _, made = twins(folder, "deep_prefix", TINY_PY, "reference", shallow_layers=3)
    assert made.adapter is not None
    assert stored.adapter is not None
    assert torch.equal(made.model.weights.lm_head, stored.model.weights.lm_head)
    for ours, theirs in zip(made.model.weights.layers, stored.model.weights.layers, strict=True):
        assert torch.equal(ours.qkv, theirs.qkv)
        assert torch.equal(ours.down, theirs.down)
    for name, p in made.adapter.named_parameters():
        assert torch.equal(p, stored.adapter.get_parameter(name)), name
    assert made.adapter.config == stored.adapter.config
    assert made.model.config == stored.model.config


def test_what_is_said(widened_folder: tuple[Path, str]) -> None:
    out, said = widened_folder
    files = open_checkpoint(out)
    assert len(files.names) == 2 + TINY_PY.num_layers
    read = [files.read(name) for names in files.names.values() for name in names if name != EMBED]
    share = sum(int((t == 0).sum()) for t in read) / sum(t.numel() for t in read)
    lines = said.splitlines()
    assert lines[1] == f"zeros: {share:.1%} of what a step reads"
    assert lines[2] == "adapter deep_prefix: exit layer 1 of 2 (50.0%) -> 4 of 16 (25.0%)"
    assert lines[3].startswith("adapter paper: ")
    assert lines[4] == "widths 32 -> 192: norms or queries are rounded"


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    for arguments, why in (
        ((folder, mine, *FACTS), "not touched"),
        ((folder, tmp_path / "x", "--shape", "odd"), "shape: expected one of"),
        ((folder, tmp_path / "x", "--shape", "tiny-py", "--dtype", "int8"), "dtype: expected"),
        ((tmp_path / "absent", tmp_path / "x", *FACTS), "no such folder"),
        ((folder, tmp_path / "x", *FACTS, "--shallow-layers", "15"), "expected 0 to 14, got 15"),
    ):
        result = widen(*arguments)
        assert result.exit_code == 2
        assert why in " ".join(result.output.replace("│", " ").split())
    assert (mine / "file").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_failure_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("kangaroo.zoo.widen.save_adapter", full)
    result = widen(folder, tmp_path / "out", *FACTS)
    assert result.exit_code == 2
    assert "no space left" in result.output
    assert list(tmp_path.iterdir()) == []
