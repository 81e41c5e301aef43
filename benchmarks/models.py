"""The shapes of the models whose ops are timed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kangaroo_kernels.testing import Heads

EPS = 1e-5
# A step of plain decoding, a chain of drafts being verified, a full tile.
NUM_NODES = (1, 6, 16)


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
VICUNA_7B = Model("Vicuna-7B", 4096, Heads(32, 32, 128), 11008, 32000)
LLAMA_8B = Model("Llama-3.1-8B", 4096, Heads(32, 8, 128), 14336, 128256)

QWEN3_8B = Model("Qwen3-8B", 4096, Heads(32, 8, 128), 12288, 151936)


def models_for(device: torch.device) -> tuple[Model, ...]:
    """What fits the device."""
    return (TINY_PY, VICUNA_7B, LLAMA_8B, QWEN3_8B) if device.type == "cuda" else (TINY_PY,)
