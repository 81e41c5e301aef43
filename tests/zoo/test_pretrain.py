"""Pretraining writes what it has trained, and nothing where it has trained nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from kangaroo.zoo import corpus, pretrain
from kangaroo.zoo.pretrain import PretrainConfig

CONFIG = PretrainConfig(
    vocab_size=300,
    hidden_size=16,
    intermediate_size=16,
    num_layers=2,
    head_dim=8,
    context_len=16,
    tokens_per_step=32,
    phases=((0.0, 2, 8), (0.5, 1, 16)),
)


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {f"{n}.py": f"def f{n}(x):\n    return x + {n}\n" * 9 for n in range(60)}
    monkeypatch.setattr(corpus, "stdlib_files", lambda: texts)
    monkeypatch.setattr(pretrain, "HELD_OUT_WINDOW", 16)


def test_without_time_weights_are_measured_and_stay_as_they_are(tmp_path: Path) -> None:
    out, none = tmp_path / "out", tmp_path / "none"
    pretrain.train(replace(CONFIG, minutes=1e-3), out, "cpu")
    assert PreTrainedTokenizerFast.from_pretrained(out).bos_token_id is not None
    model = LlamaForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    with torch.no_grad():
        for weight in model.float().parameters():
            weight.add_(1e-5)  # not to be had in bfloat16
    model.save_pretrained(out)
    before = {file: file.read_bytes() for file in out.iterdir()}
    none_at_all = replace(CONFIG, minutes=0.0, phases=((0.0, 1, 16),))
    losses = [pretrain.train(none_at_all, folder, "cpu", out) for folder in (out, none)]
    assert losses[0] == losses[1]
    assert {file: file.read_bytes() for file in out.iterdir()} == before
    assert not none.exists()
