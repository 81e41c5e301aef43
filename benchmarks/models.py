"""The shapes that are timed: the ops' and whole models'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from kangaroo.config import ModelConfig
from kangaroo.zoo import shapes
from kangaroo.zoo.shapes import Shape
from kangaroo_kernels.testing import Heads

EPS = 1e-5


@dataclass(frozen=True)
class Model:
    """Sizes of a model of the Llama family.

    Attributes:
        exit_layer: layers that the drafter shares with it.
        num_slots: tokens of context that it was made for.
        tied: the head is the embedding matrix.
    """

    name: str
    hidden: int
    heads: Heads
    ffn: int
    vocab: int
    num_layers: int
    family: str = "llama"
    exit_layer: int = 2
    num_slots: int = 131072
    rope_theta: float = 5e5
    tied: bool = False

    @property
    def shape(self) -> Shape:
        """The sizes alone."""
        heads = self.heads.h_q, self.heads.h_kv, self.heads.head_dim
        return Shape(self.name, self.hidden, self.ffn, self.num_layers, *heads, self.vocab)

    @property
    def qkv_width(self) -> int:
        return (self.heads.h_q + 2 * self.heads.h_kv) * self.heads.head_dim

    @property
    def config(self) -> ModelConfig:
        """The geometry, without scalings for long contexts: they change no byte that is moved."""
        dim = self.heads.head_dim
        powers = torch.arange(0, dim, 2, dtype=torch.float32) / dim
        return ModelConfig(
            family=self.family,
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            intermediate_size=self.ffn,
            num_layers=self.num_layers,
            num_heads=self.heads.h_q,
            num_kv_heads=self.heads.h_kv,
            head_dim=dim,
            max_seq_len=self.num_slots,
            rms_norm_eps=EPS,
            rope_inv_freq=tuple((1.0 / self.rope_theta**powers).tolist()),
            qk_norm=self.family == "qwen3",
            tie_embeddings=self.tied,
        )


def _model(shape: Shape, **extra: Any) -> Model:
    heads = Heads(shape.num_heads, shape.num_kv_heads, shape.head_dim)
    sizes = shape.hidden_size, heads, shape.intermediate_size, shape.vocab_size, shape.num_layers
    return Model(shape.name, *sizes, **extra)


TINY_PY = _model(shapes.TINY_PY, num_slots=1024, rope_theta=1e4, tied=True)
LLAMA_1B = _model(shapes.LLAMA_1B, tied=True)
VICUNA_7B = _model(shapes.VICUNA_7B, num_slots=4096, rope_theta=1e4)
LLAMA_8B = _model(shapes.LLAMA_8B)
QWEN3_8B = _model(shapes.QWEN3_8B, family="qwen3", num_slots=40960, rope_theta=1e6)
SHAPES = {
    "tiny": TINY_PY,
    "llama-3.2-1b": LLAMA_1B,
    "vicuna-7b": VICUNA_7B,
    "llama-3.1-8b": LLAMA_8B,
    "qwen3-8b": QWEN3_8B,
}


@dataclass(frozen=True)
class Sweep:
    """Every op at every model; attention at every context and batch besides.

    Attributes:
        num_nodes: rows of a call, from a step of plain decoding to the largest tree.
    """

    models: tuple[Model, ...]
    num_nodes: tuple[int, ...]
    contexts: tuple[int, ...]
    batches: tuple[int, ...]


SWEEPS = {
    "cpu": Sweep((TINY_PY,), (1, 6, 16), (256, 960), (1,)),
    "quick": Sweep((LLAMA_8B,), (1, 16), (1024, 8192), (1,)),
    "cuda": Sweep(
        (VICUNA_7B, LLAMA_8B, QWEN3_8B), (1, 4, 8, 16, 64), (1024, 8192, 32768), (1, 4, 16)
    ),
}
