"""The shapes that ops are timed at."""

from __future__ import annotations

from dataclasses import dataclass

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


TINY_PY = Model("tiny-py", 192, Heads(3, 3, 64), 512, 4096)
LLAMA_1B = Model("Llama-3.2-1B", 2048, Heads(32, 8, 64), 8192, 128256)
VICUNA_7B = Model("Vicuna-7B", 4096, Heads(32, 32, 128), 11008, 32000)
LLAMA_8B = Model("Llama-3.1-8B", 4096, Heads(32, 8, 128), 14336, 128256)
QWEN3_8B = Model("Qwen3-8B", 4096, Heads(32, 8, 128), 12288, 151936)


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
