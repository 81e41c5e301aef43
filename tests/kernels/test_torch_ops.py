"""torch.ops.kangaroo.*: schemas that are true, fakes that are right, the results of the plain ops,
and a round that torch.compile traces in one graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import kangaroo_kernels.torch_ops
from kangaroo_kernels import Target, testing
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draws import Draw, Draws
from kangaroo_kernels.kernel_set import IMPLS, auto_backend, load_impl
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.testing import Heads
from tests.kernels.adapters import refresh_inputs, step_inputs
from tests.kernels.copies import Texts
from tests.kernels.growing import PASS, Bed
from tests.kernels.heads import make_head
from tests.kernels.rounds import Ending

EPS = 1e-5
HEADS = Heads(4, 2, 16)
DEVICES = [
    pytest.param("cpu", torch.float32),
    pytest.param("cpu", torch.bfloat16),
    pytest.param("cuda", torch.bfloat16, marks=pytest.mark.gpu),
]


def flat(nodes: NodeBatch) -> tuple[Any, ...]:
    return nodes.positions, nodes.cache_seqlens, nodes.first_node, nodes.ancestors


def chain() -> DraftChain:
    i32 = torch.int32
    return DraftChain(
        torch.zeros(2, 4, dtype=torch.int64),
        torch.zeros(2, 4, dtype=i32),
        torch.ones(2, dtype=i32),
        torch.zeros(2, dtype=i32),
        torch.full((2,), 0.1),
    )


def samples(dtype: torch.dtype) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Op -> positional and keyword arguments."""
    x, width, ffn = torch.randn(2, 3, 32).to(dtype), 32, 48
    norm, weight = testing.random_norm_weight(width, dtype), testing.random_weight(40, width, dtype)
    tree = testing.tree_nodes(testing.random_parents(2, 3), [5, 60])
    attention = testing.attention_inputs(HEADS, tree, dtype)
    caches = attention.k_cache, attention.v_cache
    rope, qkv = testing.rope_table(128, 16), torch.randn(2, 3, 8 * 16).to(dtype)
    mlp = testing.random_weight(2 * ffn, width, dtype), testing.random_weight(width, ffn, dtype)
    ranking = (x, *make_head("ids", 40, width, dtype), norm, EPS)
    step, refresh = (make(HEADS, width, tree, dtype) for make in (step_inputs, refresh_inputs))
    lengths = torch.tensor([2, 1], dtype=torch.int32), torch.tensor([5, 7], dtype=torch.int32)
    path = torch.tensor([[0, 2, -1], [0, -1, -1]])
    rows = [torch.randn(2, 2, h, 10, 4).to(dtype) for h in (1, 3)]
    best = tuple(torch.randn(2, 1, 9).softmax(-1).topk(3))[::-1]
    verified = torch.randint(40, (2, 3)), torch.tensor([[-1, 0, 1], [-1, 0, 0]])
    draws = Draws.of([Draw(1.0, 5, 0.9, 0.1, 7), Draw()], torch.get_default_device())
    drawing = (torch.randn(2, 3, 40), *draws, tree.positions, 2, None)
    return {
        "embedding": ((torch.randint(40, (2, 3)), weight), {}),
        "linear": ((x, weight), {"bias": norm.repeat(2)[:40], "norm_weight": norm, "eps": EPS}),
        "rms_norm": ((x, norm, EPS), {}),
        "rope_append_kv": ((qkv, *caches, *flat(tree), rope), {}),
        "tree_attention": ((attention.q, *caches, *flat(tree), attention.scale), {}),
        "gated_mlp": ((x, *mlp, norm, EPS), {}),
        "top1_confidence": (ranking, {}),
        "top1_confidence_append": ((*ranking, *chain()), {}),
        "topk_confidence": ((*ranking, 5), {}),
        "draft_logits": (ranking, {}),
        "draw_tokens": (drawing, {}),
        "draw_tokens_append": ((*drawing, *chain()), {}),
        "adapter_step": ((*flatten(step), EPS), {}),
        "adapter_refresh": ((*flatten(refresh), EPS), {}),
        "verify_tree": ((torch.randn(2, 3, 40), *verified), {}),
        "compact_kv": ((rows, path, *lengths), {}),
        "commit_path": (Ending.of([5, 7], [[0, 2], [0]]).flat, {"lag": 1, "limit": 99}),
        "copy_draft": (Texts.of([[5, 7, 5]], 4).flat, {"size": 1, "count": 2}),
        "grow_tree": ((*best, *Bed.of([5, 7], 16, 12, 3).flat), PASS | {"max_nodes": 16}),
    }


def flatten(inputs: Any) -> tuple[Any, ...]:
    """h or all three states, weights, caches, nodes, rope."""
    first, weights, k_cache, v_cache, nodes, rope = inputs.args
    states = first if isinstance(first, tuple) else (first,)
    return (*states, *weights, k_cache, v_cache, *flat(nodes), rope)


def op_named(name: str) -> Callable[..., Any]:
    op: Callable[..., Any] = getattr(torch.ops.kangaroo, name).default
    return op


@pytest.mark.parametrize(("device", "dtype"), DEVICES)
@pytest.mark.parametrize("name", list(samples(torch.float32)))
def test_opcheck(name: str, device: str, dtype: torch.dtype) -> None:
    """Schema, mutations, fake and functionalization."""
    args, kwargs = samples(dtype)[name]
    torch.library.opcheck(op_named(name), args, kwargs)


def test_every_op_is_registered() -> None:
    assert set(samples(torch.float32)) == {
        *IMPLS,
        "top1_confidence_append",
        "draw_tokens_append",
    }
    assert kangaroo_kernels.torch_ops.LIBRARY.ns == "kangaroo"


def test_results_are_those_of_the_plain_ops() -> None:
    """Argument order is the one thing that passing structures flat can get wrong."""
    target = Target(torch.device("cpu"), torch.float32, HEADS.head_dim)
    for name, make in (("adapter_step", step_inputs), ("adapter_refresh", refresh_inputs)):
        inputs = make(HEADS, 32, testing.tree_nodes(testing.random_parents(2, 3), [5, 60]))
        plain, boxed = inputs.cloned(), inputs.cloned()
        expected = load_impl(name, auto_backend(name, target), target)(*plain.args, eps=EPS)
        result = op_named(name)(*flatten(boxed), EPS)
        assert (result is None) == (expected is None)
        if result is not None:
            testing.assert_same_bits(result, expected)
        testing.assert_same_bits(boxed.k_cache, plain.k_cache)
        testing.assert_same_bits(boxed.v_cache, plain.v_cache)


def test_another_first_node_is_no_other_program() -> None:
    """A draft of any depth is compiled once."""
    rope, norm = testing.rope_table(128, 16), torch.ones(16)

    def append(qkv: Tensor, k_cache: Tensor, v_cache: Tensor, *where: Any) -> Tensor:
        args = (qkv, k_cache, v_cache, *where, rope)
        return torch.ops.kangaroo.rope_append_kv(*args, q_norm=norm, eps=EPS)

    compiled = torch.compile(append, backend="aot_eager", fullgraph=True)
    for first_node in range(12):
        nodes = testing.chain_nodes([5], 1, first_node)
        cache = torch.zeros(1, 2, 64, 16)
        qkv = torch.randn(1, 1, 8 * 16)
        expected = append(qkv, cache.clone(), cache.clone(), *flat(nodes))
        actual = compiled(qkv, cache.clone(), cache.clone(), *flat(nodes))
        testing.assert_same_bits(actual, expected)


def test_compiled_in_one_graph() -> None:
    """A draft step; caches and chain are mutated as in eager mode."""
    x, norm = torch.randn(2, 1, 32), torch.ones(32)
    step = step_inputs(HEADS, 32, testing.chain_nodes([5, 60], 1))
    embed, head = testing.random_weight(40, 32), make_head("plain", 40, 32)
    ops = torch.ops.kangaroo

    def draft(k_cache: Tensor, v_cache: Tensor, drafted: DraftChain) -> Tensor:
        h = x + ops.embedding(drafted.tokens[:, :1].contiguous(), embed)
        args = (h, *step.weights, k_cache, v_cache, *flat(step.nodes), step.rope, EPS)
        h = ops.adapter_step(*args)
        return ops.top1_confidence_append(h, *head, norm, EPS, *drafted)[1]

    results = []
    for run in (draft, torch.compile(draft, backend="aot_eager", fullgraph=True)):
        drafted, own = chain(), step.cloned()
        confidence = run(own.k_cache, own.v_cache, drafted)
        results.append([confidence, own.k_cache, own.v_cache, *drafted])
    assert results[0][3][:, 1].any()
    for eager, compiled in zip(*results, strict=True):
        testing.assert_same_bits(compiled, eager)
