"""Seeded small cases of every op that multiplies: against float64, and row by row. This is where
Triton's kernels are proved in the interpreter in an ordinary run; `-m fuzz` has more.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo_kernels import testing
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.testing import Heads
from tests.kernels import naive
from tests.kernels.adapters import refresh_inputs, step_inputs
from tests.kernels.conftest import NUM_CASES, NUM_FUZZ_CASES, seeded
from tests.kernels.heads import EXACT, Ranked, make_head

EPS = 1e-5


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        run: gives [N, ...], what the op makes of N rows; `rows` says which of them are in the call.
        exact, low: the same in float64, and by PyTorch in the dtype.
        num_rows: N.
    """

    run: Callable[[Callable[..., Any], slice], Tensor]
    exact: Tensor
    low: Tensor
    num_rows: int


def projections(draw: random.Random, dtype: torch.dtype) -> tuple[Tensor, int]:
    """x [1, N, C] and a number of outputs; often a single row, seldom more than a tile;
    sums that are split, and several tiles of outputs.
    """
    num_rows = draw.choice([1, 1, 2, 3, 7, 16, 19])
    width = draw.choice([1, 5, 40, 127, 128, 193, 700, 4200])
    return torch.randn(1, num_rows, width).to(dtype), draw.choice([1, 7, 45, 64, 130])


def rows_case(
    call: Callable[..., Tensor], maths: Callable[..., Tensor], x: Tensor, *rest: Any
) -> Case:
    """Of an op whose first argument [1, N, C] is all that differs by row."""
    return Case(
        run=lambda op, rows: call(op, x[:, rows].contiguous(), rows)[0],
        exact=maths(*testing.widen(x, *rest))[0],
        low=maths(x, *rest)[0],
        num_rows=x.shape[1],
    )


def linear(draw: random.Random, dtype: torch.dtype) -> Case:
    x, num_out = projections(draw, dtype)
    weight = testing.random_weight(num_out, x.shape[2], dtype)
    bias = torch.randn(num_out).to(dtype) if draw.random() < 0.5 else None
    norm = testing.random_norm_weight(x.shape[2], dtype) if draw.random() < 0.5 else None
    residual = torch.randn(*x.shape[:2], num_out).to(dtype) if draw.random() < 0.5 else None

    def call(op: Any, some: Tensor, rows: slice) -> Tensor:
        behind = None if residual is None else residual[:, rows].contiguous()
        out: Tensor = op(some, weight, bias=bias, norm_weight=norm, eps=EPS, residual=behind)
        return out

    maths = lambda *args: naive.linear(*args, eps=EPS)  # noqa: E731
    return rows_case(call, maths, x, weight, bias, norm, residual)


def gated_mlp(draw: random.Random, dtype: torch.dtype) -> Case:
    x, inner = projections(draw, dtype)
    width = x.shape[2]
    rest = (
        testing.random_weight(2 * inner, width, dtype),
        testing.random_weight(width, inner, dtype),
        testing.random_norm_weight(width, dtype),
    )
    maths = lambda *args: naive.gated_mlp(*args, EPS)  # noqa: E731
    return rows_case(lambda op, some, rows: op(some, *rest, EPS), maths, x, *rest)


def rms_norm(draw: random.Random, dtype: torch.dtype) -> Case:
    x, _ = projections(draw, dtype)
    weight = testing.random_norm_weight(x.shape[2], dtype)
    maths = lambda *args: naive.rms_norm(*args, EPS)  # noqa: E731
    return rows_case(lambda op, some, rows: op(some, weight, EPS), maths, x, weight)


def ranking(draw: random.Random, dtype: torch.dtype, k: int | None) -> Case:
    """The confidences; tokens are checked by their logits, which may err as PyTorch's do."""
    x, vocab = projections(draw, dtype)
    head = make_head(draw.choice(EXACT), vocab, x.shape[2], dtype)
    norm = testing.random_norm_weight(x.shape[2], dtype)
    ranked = Ranked(x, head, norm)
    width = min(k or 1, head.num_ids)

    said: list[Tensor] = []  # of all rows, by the first call

    def run(op: Any, rows: slice) -> Tensor:
        some = x[:, rows].contiguous(), head, norm, EPS
        tokens, confidence = (t.view(1, -1, width) for t in op(*some, *[width] * (k is not None)))
        ranked.check_tokens(tokens, rows)
        said.append(tokens)
        assert tokens.equal(said[0][:, rows])
        return confidence[0]

    exact, low = (logits.softmax(-1).topk(width).values[0] for logits in (ranked.exact, ranked.low))
    return Case(run, exact, low.float(), x.shape[1])


def top1_confidence(draw: random.Random, dtype: torch.dtype) -> Case:
    return ranking(draw, dtype, None)


def topk_confidence(draw: random.Random, dtype: torch.dtype) -> Case:
    return ranking(draw, dtype, draw.choice([1, 2, 10, 16]))


def draft_logits(draw: random.Random, dtype: torch.dtype) -> Case:
    x, vocab = projections(draw, dtype)
    head = make_head(draw.choice(EXACT), vocab, x.shape[2], dtype)
    norm = testing.random_norm_weight(x.shape[2], dtype)
    ranked, ids = Ranked(x, head, norm), slice(None) if head.token_ids is None else head.token_ids

    def run(op: Any, rows: slice) -> Tensor:
        out: Tensor = op(x[:, rows].contiguous(), head, norm, EPS)
        return out[0]

    return Case(run, ranked.exact[0, :, ids], ranked.low[0, :, ids].float(), x.shape[1])


def places(draw: random.Random) -> tuple[Heads, NodeBatch]:
    """Heads, and the nodes of a chain or a tree, at the beginning of a cache or over an edge."""
    heads = draw.choice([Heads(1, 1, 16), Heads(2, 1, 40), Heads(2, 2, 6)])
    num_nodes, first_node = draw.choice([1, 2, 4]), draw.choice([0, 0, 3])
    prefix = draw.choice([0, 1, 60, 64, 250])
    if draw.random() < 0.5:
        return heads, testing.chain_nodes([prefix], num_nodes, first_node)
    parents = testing.random_parents(1, first_node + num_nodes)
    return heads, testing.tree_nodes(parents, [prefix], first_node)


def nodes_of(nodes: NodeBatch, rows: slice) -> NodeBatch:
    masks = None if nodes.ancestors is None else nodes.ancestors[:, rows].contiguous()
    start = nodes.first_node + (rows.start or 0)
    return NodeBatch(nodes.positions[:, rows].contiguous(), nodes.cache_seqlens, start, masks)


def tree_attention(draw: random.Random, dtype: torch.dtype) -> Case:
    heads, nodes = places(draw)
    inputs = testing.attention_inputs(heads, nodes, dtype, unused=float("nan"))
    clean = [torch.nan_to_num(cache) for cache in (inputs.k_cache, inputs.v_cache)]
    tensors = (inputs.q, *clean)

    def run(op: Any, rows: slice) -> Tensor:
        q = inputs.q[:, rows].contiguous()
        out: Tensor = op(q, inputs.k_cache, inputs.v_cache, nodes_of(nodes, rows), inputs.scale)
        return out[0]

    exact = naive.tree_attention(*testing.widen(*tensors), nodes, inputs.scale)[0]
    low = naive.tree_attention(*tensors, nodes, inputs.scale)[0]
    return Case(run, exact, low, inputs.q.shape[1])


def adapter_step(draw: random.Random, dtype: torch.dtype) -> Case:
    """Its states; the appended rows are checked by the nodes that read them."""
    heads, nodes = places(draw)
    inputs = step_inputs(heads, draw.choice([16, 37, 130]), nodes, dtype)

    def run(op: Any, rows: slice) -> Tensor:
        own = inputs.cloned()
        before = slice(0, rows.start or 0)
        if before.stop:  # the rows in front are in the cache already
            first = replace(own, first=own.first[:, before].contiguous())
            op(*replace(first, nodes=nodes_of(nodes, before)).args, eps=EPS)
        some = replace(own, first=own.first[:, rows].contiguous(), nodes=nodes_of(nodes, rows))
        out: Tensor = op(*some.args, eps=EPS)
        return out[0]

    exact = naive.adapter_step(*inputs.cloned().widened().args, eps=EPS)[0]
    low = naive.adapter_step(*inputs.cloned().args, eps=EPS)[0]
    return Case(run, exact, low, exact.shape[0])


def adapter_refresh(draw: random.Random, dtype: torch.dtype) -> Case:
    """The rows that it writes: keys and values of each node."""
    heads, nodes = places(draw)
    inputs = refresh_inputs(heads, draw.choice([16, 37, 130]), nodes, dtype)
    start = int(nodes.cache_seqlens) + nodes.first_node

    def written(op: Any, some: Any, rows: slice) -> Tensor:
        op(*some.args, eps=EPS)
        caches = torch.cat([some.k_cache, some.v_cache], dim=1)[0]
        first = start + (rows.start or 0)
        return caches[:, first : first + some.first[0].shape[1]].transpose(0, 1)

    def run(op: Any, rows: slice) -> Tensor:
        states = tuple(h[:, rows].contiguous() for h in inputs.first)
        own = replace(inputs.cloned(), first=states, nodes=nodes_of(nodes, rows))
        return written(op, own, rows)

    everything = slice(None)
    exact = written(naive.adapter_refresh, inputs.cloned().widened(), everything)
    low = written(naive.adapter_refresh, inputs.cloned(), everything)
    return Case(run, exact, low, exact.shape[0])


def rope_append_kv(draw: random.Random, dtype: torch.dtype) -> Case:
    """Rotated queries, and the rows of keys and values that it writes."""
    heads, nodes = places(draw)
    caches = testing.attention_inputs(heads, nodes, dtype)
    num_nodes, d = nodes.positions.shape[1], heads.head_dim
    qkv = torch.randn(1, num_nodes, (heads.h_q + 2 * heads.h_kv) * d).to(dtype)
    rope = testing.rope_table(300, d)
    norms = [testing.random_norm_weight(d, dtype) if draw.random() < 0.5 else None for _ in "qk"]

    def run(op: Any, rows: slice) -> Tensor:
        k_cache, v_cache = caches.k_cache.clone(), caches.v_cache.clone()
        some, own = qkv[:, rows].contiguous(), nodes_of(nodes, rows)
        q = op(some, k_cache, v_cache, own, rope, q_norm=norms[0], k_norm=norms[1], eps=EPS)
        first = int(nodes.cache_seqlens) + own.first_node
        slots = slice(first, first + some.shape[1])
        kept = [cache[0, :, slots].transpose(0, 1) for cache in (k_cache, v_cache)]
        return torch.cat([q[0], *kept], dim=1)

    def maths(qkv: Tensor, rope: Tensor, q_norm: Tensor | None, k_norm: Tensor | None) -> Tensor:
        q, k, v = qkv.unflatten(-1, (-1, d)).split([heads.h_q, heads.h_kv, heads.h_kv], dim=2)
        q = q if q_norm is None else naive.rms_norm(q, q_norm, EPS)
        k = k if k_norm is None else naive.rms_norm(k, k_norm, EPS)
        cos, sin = rope[:, nodes.positions.long()].to(qkv.dtype)
        return torch.cat([naive.rotate(q, cos, sin), naive.rotate(k, cos, sin), v], dim=2)[0]

    exact = maths(*testing.widen(qkv, rope, *norms))
    return Case(run, exact, maths(qkv, rope, *norms), num_nodes)


CASES = {
    make.__name__: make
    for make in (
        linear,
        gated_mlp,
        rms_norm,
        top1_confidence,
        topk_confidence,
        draft_logits,
        tree_attention,
        adapter_step,
        adapter_refresh,
        rope_append_kv,
    )
}
PARAMETERS = seeded(CASES)


def check(op: str, implementation: Callable[..., Any], dtype: torch.dtype, seeds: range) -> None:
    budget = testing.Budget()
    for seed in seeds:
        draw = random.Random(f"{op}/{dtype}/{seed}")
        torch.manual_seed(draw.getrandbits(60))
        case = CASES[op](draw, dtype)
        together = case.run(implementation, slice(None))
        budget.add(together, case.exact, case.low)
        row = draw.randrange(case.num_rows)
        alone = case.run(implementation, slice(row, row + 1))
        testing.assert_same_bits(alone[0], together[row])
    budget.check()


@pytest.mark.parametrize(("op", "implementation", "dtype"), PARAMETERS)
def test_cases(op: str, implementation: Callable[..., Any], dtype: torch.dtype) -> None:
    check(op, implementation, dtype, range(NUM_CASES))


@pytest.mark.fuzz
@pytest.mark.parametrize(("op", "implementation", "dtype"), PARAMETERS)
def test_many_cases(op: str, implementation: Callable[..., Any], dtype: torch.dtype) -> None:
    check(op, implementation, dtype, range(NUM_CASES, NUM_CASES + NUM_FUZZ_CASES))
