"""A target with tokenizer and adapters in one folder, as a user has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kangaroo.config import ADAPTER_KINDS
from kangaroo.models.adapter_io import init_adapter
from kangaroo.zoo import corpus
from tests.factories import make_checkpoint

VOCAB_SIZE = 263  # two special tokens, 256 bytes, and a few merges
TEXTS = ["def add(a, b):\n    return a + b\n", "for x in range(3):\n    add(x, x)\n"]


def make_folder(path: Path, **overrides: Any) -> Path:
    """Write a random two-layer target, a tokenizer of bytes, and a fresh adapter of every kind."""
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "bos_token_id": 0}
    make_checkpoint(path, "llama", **(small | {"eos_token_id": 1} | overrides))
    corpus.train_tokenizer(TEXTS, VOCAB_SIZE).save_pretrained(path)
    for kind in ADAPTER_KINDS:
        init_adapter(path, 1, path / "adapters" / kind, kind, seed=0)
    return path
