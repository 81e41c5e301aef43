"""Sizes of well-known models, for benchmarks and for `zoo.widen`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Sizes of a model of the Llama family; the fields mean what they mean in ModelConfig."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int


TINY_PY = Shape("tiny-py", 192, 512, 16, 3, 3, 64, 4096)
LLAMA_1B = Shape("Llama-3.2-1B", 2048, 8192, 16, 32, 8, 64, 128256)
LLAMA_3B = Shape("Llama-3.2-3B", 3072, 8192, 28, 24, 8, 128, 128256)
VICUNA_7B = Shape("Vicuna-7B", 4096, 11008, 32, 32, 32, 128, 32000)
LLAMA_8B = Shape("Llama-3.1-8B", 4096, 14336, 32, 32, 8, 128, 128256)
QWEN3_8B = Shape("Qwen3-8B", 4096, 12288, 36, 32, 8, 128, 151936)
SHAPES = {
    shape.name.lower(): shape
    for shape in (TINY_PY, LLAMA_1B, LLAMA_3B, VICUNA_7B, LLAMA_8B, QWEN3_8B)
}
