"""The shapes that ops are timed at."""

from __future__ import annotations

from dataclasses import dataclass

from kangaroo.zoo import shapes
from kangaroo.zoo.shapes import Shape
from kangaroo_kernels.testing import Heads

EPS = 1e-5


@dataclass(frozen=True)
class Model:
    """Sizes of a model of the Llama family."""

    name: str
    hidden: int
    heads: Heads
    ffn: int
    vocab: int

    @property
    def qkv_width(self) -> int:
        return (self.heads.h_q + 2 * self.heads.h_kv) * self.heads.head_dim


def _model(shape: Shape) -> Model:
    heads = Heads(shape.num_heads, shape.num_kv_heads, shape.head_dim)
    return Model(shape.name, shape.hidden_size, heads, shape.intermediate_size, shape.vocab_size)


TINY_PY, LLAMA_1B, VICUNA_7B = map(_model, (shapes.TINY_PY, shapes.LLAMA_1B, shapes.VICUNA_7B))
LLAMA_8B, QWEN3_8B = map(_model, (shapes.LLAMA_8B, shapes.QWEN3_8B))


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
