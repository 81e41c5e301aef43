"""How many kernels an op launches at the shapes of real models. Nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from kangaroo_kernels import Backend, Target
from kangaroo_kernels.adapter_weights import DrafterWeights, RefreshWeights, StepWeights
from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.draws import Draws
from kangaroo_kernels.kernel_set import KernelSet, load_impl
from kangaroo_kernels.layer_weights import LayerWeights
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.testing import Heads
from tests.kernels.copies import Texts
from tests.kernels.growing import PASS, Bed
from tests.kernels.rounds import Ending

pytestmark = [
    pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="counts launches of the interpreter"),
]

EPS = 1e-5
NUM_SLOTS = 4096
# Heads, MLP width, vocabulary; hidden size 4096: Vicuna-7B, Llama-3.1-8B, Qwen3-8B.
MODELS = [(Heads(32, 32, 128), 11008, 32000), (Heads(32, 8, 128), 14336, 128256)]
MODELS += [(Heads(32, 8, 128), 12288, 151936)]


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Names of the kernels that are launched in here, none of which runs."""
    from triton.runtime.interpreter import InterpretedFunction

    names: list[str] = []

    def launch(self: Any, *_args: Any, **_options: Any) -> None:
        names.append(self.fn.__name__)

    with patch.object(InterpretedFunction, "run", launch):
        yield names


def new(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def nodes(num_nodes: int) -> NodeBatch:
    i32 = torch.int32
    return NodeBatch(new(1, num_nodes, dtype=i32), new(1, dtype=i32))


def calls(heads: Heads, ffn: int, vocab: int) -> dict[str, tuple[int, Callable[[Any], object]]]:
    """Op -> its launches, and a call of it."""
    c, i32, i64 = 4096, torch.int32, torch.int64
    q_width, kv_width = heads.h_q * heads.head_dim, heads.h_kv * heads.head_dim
    x, norm, cache = new(1, 2, c), new(c), new(1, heads.h_kv, NUM_SLOTS, heads.head_dim)
    qkv = new(q_width + 2 * kv_width, c)
    rope = new(2, NUM_SLOTS, heads.head_dim // 2, dtype=torch.float32)
    step = StepWeights(norm, qkv, new(c, q_width))
    deep = RefreshWeights(norm, norm, norm, new(2 * kv_width, 3 * c))
    head, one = DraftHead(new(vocab, c)), new(1, dtype=i32)
    chain = DraftChain(new(1, 8, dtype=i64), new(1, 8, dtype=i32), one, one, one.float())
    tree = new(1, 8, dtype=i64), new(1, 8, dtype=i64)
    float64 = new(1, dtype=torch.float64)
    draws = Draws(float64, one, float64, float64, *[new(1, dtype=i64)] * 2)
    drawn = new(1, 8, vocab, dtype=torch.float32), draws, new(1, 8, dtype=i32)
    rows = [new(4, 1, heads.h_kv, NUM_SLOTS, heads.head_dim)] * 3 + [new(1, 1, 1, NUM_SLOTS, c)]
    where, q = (cache, cache, nodes(2)), new(1, 2, heads.h_q, heads.head_dim)
    return {
        "embedding": (1, lambda op: op(tree[0], head.weight)),
        "linear": (2, lambda op: op(x, qkv, norm_weight=norm, eps=EPS)),
        "rms_norm": (1, lambda op: op(x, norm, EPS)),
        "rope_append_kv": (1, lambda op: op(new(1, 2, len(qkv)), *where, rope)),
        "tree_attention": (2, lambda op: op(q, *where, 1.0)),
        "gated_mlp": (3, lambda op: op(x, new(2 * ffn, c), new(c, ffn), norm, EPS)),
        "top1_confidence": (3, lambda op: op(x, head, norm, EPS, chain=chain)),
        "topk_confidence": (3, lambda op: op(x, head, norm, EPS, 10)),
        "draft_logits": (2, lambda op: op(x, head, norm, EPS)),
        "draw_tokens": (3, lambda op: op(*drawn, 10, token_ids=new(vocab, dtype=i32), chain=chain)),
        "adapter_step": (5, lambda op: op(x, step, *where, rope, eps=EPS)),
        "adapter_refresh": (2, lambda op: op((x, x, x), deep, *where, rope, eps=EPS)),
        "verify_tree": (2, lambda op: op(new(1, 8, vocab), *tree)),
        "compact_kv": (1, lambda op: op(rows, tree[0], one, one)),
        "commit_path": (1, lambda op: op(*Ending.of([9], [[0, 1]], c).args, lag=1, limit=99)),
        "copy_draft": (1, lambda op: Texts.of([[1, 1]], 4).look(op, 1, 3)),
        "grow_tree": (1, lambda op: Bed.of([9], 16, 12, 10).grow(op, torch.ones(1, 1, 10), PASS)),
    }


@pytest.mark.parametrize("op", list(calls(*MODELS[0])))
@pytest.mark.parametrize("model", MODELS)
def test_launches(op: str, model: tuple[Heads, int, int]) -> None:
    implementation = load_impl(op, Backend.TRITON, Target(torch.device("cpu"), torch.bfloat16, 128))
    num_launches, call = calls(*model)[op]
    with recorded() as names:
        call(implementation)
    assert len(names) == num_launches, names


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("normed", [False, True])
def test_launches_of_layers(model: tuple[Heads, int, int], normed: bool) -> None:
    """Norms have one of their own in front of the first layer alone; the first product of a layer
    rotates and appends, unless heads have norms.
    """
    (heads, ffn, _), c, head_norm = model, 4096, new(model[0].head_dim) if normed else None
    q_width, qkv_width = heads.h_q * heads.head_dim, (heads.h_q + 2 * heads.h_kv) * heads.head_dim
    weights = new(c), new(qkv_width, c), new(c, q_width), new(c), new(2 * ffn, c), new(c, ffn)
    layer = LayerWeights(*weights, q_norm=head_norm, k_norm=head_norm)
    target = Target(torch.device("cpu"), torch.bfloat16, heads.head_dim)
    rope = new(2, NUM_SLOTS, heads.head_dim // 2, dtype=torch.float32)
    layers = KernelSet.resolve(target, "triton").decoder_layers([layer] * 3, rope, EPS)
    assert layers is not None
    kv = new(6, 1, heads.h_kv, NUM_SLOTS, heads.head_dim)
    with recorded() as names:
        layers(new(1, 2, c), 0, 3, kv, nodes(2))
    first = ["_product_kernel", "_rope_append_kv_kernel"] if normed else ["_project_kernel"]
    one = [*first, "_split_kernel", "_combine_kernel", *["_product_kernel"] * 3]
    assert names == ["_weigh_kernel", *one * 3]


@pytest.mark.parametrize("model", MODELS)
def test_launches_of_a_draft_step(model: tuple[Heads, int, int]) -> None:
    """No norm has one of its own: four of the adapter at a draft position, and two of the head."""
    (heads, ffn, vocab), c, num_layers, i32 = model, 4096, 2, torch.int32
    q_width, qkv_width = heads.h_q * heads.head_dim, (heads.h_q + 2 * heads.h_kv) * heads.head_dim
    own = new(c), new(qkv_width, c), new(c, q_width)
    layer = LayerWeights(*own, new(c), new(2 * ffn, c), new(c, ffn))
    rope = new(2, NUM_SLOTS, heads.head_dim // 2, dtype=torch.float32)
    target = Target(torch.device("cpu"), torch.bfloat16, heads.head_dim)
    kernels = KernelSet.resolve(target, "triton")
    embed, kv = new(vocab, c), new(2 * num_layers, 1, heads.h_kv, NUM_SLOTS, heads.head_dim)
    parts = num_layers, embed, StepWeights(*own), DraftHead(embed), new(c), EPS
    layers = kernels.decoder_layers([layer] * 3, rope, EPS)
    step = kernels.draft_step(layers, DrafterWeights(*parts))
    assert step is not None
    with recorded() as names:
        states = step.enter(new(1, 1, dtype=torch.int64), kv, nodes(1), new(1, 1, c))
    attention = ["_project_kernel", "_split_kernel", "_combine_kernel", "_product_kernel"]
    assert names == ["_embedding_kernel", *[*attention, *["_product_kernel"] * 2] * num_layers]
    one = new(1, dtype=i32)
    chain = DraftChain(new(1, 8, dtype=torch.int64), new(1, 8, dtype=i32), one, one, one.float())
    with recorded() as names:
        step.top1(states, kv[:2], nodes(1), chain)
    assert names == [*attention, "_score_kernel", "_merge_kernel"]
