"""What tests/kernels/guarded.py calls of ops that are made of whole weights first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from kangaroo_kernels import Backend, KernelSet, Target, testing
from kangaroo_kernels.adapter_weights import DrafterWeights, StepWeights
from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.kernel_set import load_impl
from kangaroo_kernels.layer_weights import LayerWeights
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.testing import Heads
from tests.kernels.adapters import EPS

CPU = torch.device("cpu")
WHOLES = {
    "decoder_layers": (Backend.NATIVE, Backend.TRITON),
    "draft_step": (Backend.TRITON,),
}


def whole_calls(dtype: torch.dtype) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of twice the same layer, up to the last slot of the caches."""
    for heads, width, inner in ((Heads(3, 1, 10), 37, 21), (Heads(2, 2, 2), 50, 65)):
        q_width, kv_width = heads.h_q * heads.head_dim, heads.h_kv * heads.head_dim
        shapes = {
            "input_norm": (width,),
            "qkv": (q_width + 2 * kv_width, width),
            "o": (width, q_width),
            "post_norm": (width,),
            "gate_up": (2 * inner, width),
            "down": (width, inner),
        }
        layers = {
            "weights": tuple(torch.randn(shape).to(dtype) for shape in shapes.values()),
            "h": torch.randn(1, 3, width).to(dtype),
            "kv": torch.randn(4, 1, heads.h_kv, 64, heads.head_dim).to(dtype),
            "nodes": testing.chain_nodes([61], 3),
            "rope": testing.rope_table(64, heads.head_dim),
        }
        yield "decoder_layers", layers
        i32, embed = torch.int32, torch.randn(9, width).to(dtype)
        chain = DraftChain(
            torch.tensor([[3, -1]]), *torch.tensor([[[61, -1]]], dtype=i32),
            torch.ones(1, dtype=i32), torch.zeros(1, dtype=i32), torch.ones(1),
        )  # fmt: skip
        ids = {"tokens": torch.tensor([[8, 0, 3]]), "chain": chain}
        own = {"embed": embed, "own_kv": layers["kv"][:2].clone()}
        yield "draft_step", {**layers, **ids, **own}


def implementation(op: str, backend: Backend) -> Callable[..., object]:
    """What takes the arguments of `op`."""
    target = Target(CPU, torch.float32, head_dim=64)
    if op not in WHOLES:
        return load_impl(op, backend, target)
    kernels = KernelSet.resolve(target, backend)

    def run_layers(
        weights: tuple[Tensor, ...], h: Tensor, kv: Tensor, nodes: NodeBatch, rope: Tensor
    ) -> None:
        layers = kernels.decoder_layers([LayerWeights(*weights)] * 2, rope, EPS)
        assert layers is not None
        layers(h, 0, 2, kv, nodes)

    def run_step(
        weights: tuple[Tensor, ...],
        h: Tensor,
        kv: Tensor,
        nodes: NodeBatch,
        rope: Tensor,
        **more: Any,
    ) -> None:
        """The adapter and its norm are the layer's."""
        layers = kernels.decoder_layers([LayerWeights(*weights)] * 2, rope, EPS)
        own, embed, own_kv = StepWeights(*weights[:3]), more["embed"], more["own_kv"]
        parts = 2, embed, own, DraftHead(embed), weights[0], EPS
        step = kernels.draft_step(layers, DrafterWeights(*parts))
        assert step is not None
        states = step.enter(more["tokens"], kv, nodes, h)
        step.top1(states, own_kv, nodes, more["chain"])
        step.topk(states, own_kv, nodes, 2)
        step.logits(states, own_kv, nodes)

    return run_layers if op == "decoder_layers" else run_step
