"""Small targets with adapters that are sometimes right, and their wide twins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig

from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS
from kangaroo.engine.llm import GenerateOutput
from kangaroo.models.adapter_io import save_adapter
from kangaroo.models.fingerprint import fingerprint
from kangaroo.zoo.shapes import Shape
from kangaroo.zoo.widening import widened
from tests.engines import CPU, FIXED, load, make_adapter
from tests.factories import make_checkpoint

WAYS: dict[str, dict[str, Any]] = {
    "off": {"draft": "off"},
    "chain": {"draft": "chain", "confidence": 0.05, **FIXED},
    "tree": {"draft": "tree", "confidence": 0.05, "draft_top_k": 3, **FIXED},
}


def make_small(path: Path, family: str, **overrides: Any) -> Path:
    """A random target of four layers and an adapter of every kind behind the second."""
    model = load(make_checkpoint(path, family, **overrides))
    for kind in ADAPTER_KINDS:
        adapter = make_adapter(model, kind, 2)
        save_adapter(path / "adapters" / kind, adapter, model.config, fingerprint(path, 2))
    return path


@dataclass(frozen=True)
class Said:
    """New tokens, what they were chosen from [N, V], and how many were drafted and accepted."""

    tokens: list[int]
    logits: Tensor
    num_drafted: int
    num_accepted: int


def say(llm: KangarooForCausalLM, prompt: list[int], num_tokens: int, **options: Any) -> Said:
    output = llm.generate(
        prompt,
        max_new_tokens=num_tokens,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )
    assert isinstance(output, GenerateOutput)
    assert output.sequences is not None
    assert output.logits is not None
    assert output.speculation is not None
    tokens, did = output.sequences[0, len(prompt) :].tolist(), output.speculation
    return Said(tokens, torch.cat(list(output.logits)), did.num_drafted, did.num_accepted)


def twins(
    path: str | Path,
    adapter: str | None,
    shape: Shape,
    backend: str,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> tuple[KangarooForCausalLM, KangarooForCausalLM]:
    """The small model, and the same one widened; skips the test where `backend` is not there."""
    if backend == "native":
        pytest.importorskip("kangaroo_kernels._C")
    small = KangarooForCausalLM.from_pretrained(path, adapter, dtype=dtype, backend=backend)
    model, wide = widened(path, adapter, shape, dtype, CPU, backend=backend, **options)
    return small, KangarooForCausalLM(model, wide, small.path, GenerationConfig())
