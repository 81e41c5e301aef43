"""`torch.ops.kangaroo.*`: the ops for code that is compiled or exported by torch.

Importing this module registers them, each with its schema, its mutations and its fake; structures
are passed flat. A call takes the implementation that "auto" chooses for its device and dtype. They
stand beside the engine, not under it: the boundary costs microseconds, so the decode loop calls the
plain functions of a `KernelSet`. There are no gradients, and no `out`: results are new tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

from kangaroo_kernels.adapter_weights import RefreshWeights, StepWeights
from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.draft_trees import DraftTrees, Seedbed
from kangaroo_kernels.draws import Draws
from kangaroo_kernels.kernel_set import Target, auto_backend, load_impl
from kangaroo_kernels.nodes import NodeBatch, SlotPlaces
from kangaroo_kernels.verify_tree import Verdict

LIBRARY = Library("kangaroo", "DEF")

_CACHES = "Tensor(a!) k_cache, Tensor(b!) v_cache"
_NODES = "Tensor positions, Tensor cache_seqlens, SymInt first_node, Tensor? ancestors"
_HEAD = "Tensor weight, Tensor? scale, Tensor? token_ids"
_CHAIN = (
    "Tensor(a!) chain_tokens, Tensor(b!) chain_positions, Tensor(c!) chain_num_nodes, "
    "Tensor(d!) chain_stopped, Tensor chain_threshold"
)
_DRAWN = (
    "Tensor logits, Tensor temperature, Tensor top_k, Tensor top_p, Tensor min_p, Tensor seed, "
    "Tensor sequence, Tensor positions, SymInt k, Tensor? token_ids"
)


@cache
def _chosen(op: str, target: Target) -> Callable[..., Any]:
    return load_impl(op, auto_backend(op, target), target)


def _serve(op: str, like: Tensor, k_cache: Tensor | None = None) -> Callable[..., Any]:
    """The implementation of `op` for tensors like these."""
    head_dim = 0 if k_cache is None else k_cache.shape[-1]
    return _chosen(op, Target(like.device, like.dtype, head_dim))


def _op(schema: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], None]:
    """Define kangaroo::<name>; what is decorated runs it, `fake` knows the results' shapes."""
    name = schema.split("(")[0]

    def register(run: Callable[..., Any]) -> None:
        LIBRARY.define(schema)
        LIBRARY.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"kangaroo::{name}", fake, lib=LIBRARY)

    return register


@_op(
    "embedding(Tensor tokens, Tensor weight) -> Tensor",
    lambda tokens, weight: weight.new_empty(*tokens.shape, weight.shape[1]),
)
def _embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    out: Tensor = _serve("embedding", weight)(tokens, weight)
    return out


@_op(
    "linear(Tensor x, Tensor weight, *, Tensor? bias=None, Tensor? norm_weight=None, "
    "float eps=0.0, Tensor? residual=None) -> Tensor",
    lambda x, weight, **_: x.new_empty(*x.shape[:2], weight.shape[0]),
)
def _linear(x: Tensor, weight: Tensor, **around: Any) -> Tensor:
    out: Tensor = _serve("linear", x)(x, weight, **around)
    return out


@_op(
    "rms_norm(Tensor x, Tensor weight, float eps) -> Tensor",
    lambda x, *_: x.new_empty(x.shape),
)
def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    out: Tensor = _serve("rms_norm", x)(x, weight, eps)
    return out


def _fake_queries(qkv: Tensor, k_cache: Tensor, *_: Any, **__: Any) -> Tensor:
    h_kv, head_dim = k_cache.shape[1], k_cache.shape[3]
    return qkv.new_empty(*qkv.shape[:2], qkv.shape[2] // head_dim - 2 * h_kv, head_dim)


@_op(
    f"rope_append_kv(Tensor qkv, {_CACHES}, {_NODES}, Tensor rope, *, Tensor? q_norm=None, "
    "Tensor? k_norm=None, float eps=0.0) -> Tensor",
    _fake_queries,
)
def _rope_append_kv(
    qkv: Tensor, k_cache: Tensor, v_cache: Tensor, *rest: Any, **norms: Any
) -> Tensor:
    *nodes, rope = rest
    op = _serve("rope_append_kv", qkv, k_cache)
    out: Tensor = op(qkv, k_cache, v_cache, _nodes(*nodes), rope, **norms)
    return out


@_op(
    f"tree_attention(Tensor q, Tensor k_cache, Tensor v_cache, {_NODES}, float scale) -> Tensor",
    lambda q, *_: q.new_empty(q.shape),
)
def _tree_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, *rest: Any) -> Tensor:
    *nodes, scale = rest
    op = _serve("tree_attention", q, k_cache)
    out: Tensor = op(q, k_cache, v_cache, _nodes(*nodes), scale)
    return out


@_op(
    "gated_mlp(Tensor x, Tensor gate_up, Tensor down, Tensor norm_weight, float eps) -> Tensor",
    lambda x, *_: x.new_empty(x.shape),
)
def _gated_mlp(x: Tensor, *rest: Any) -> Tensor:
    out: Tensor = _serve("gated_mlp", x)(x, *rest)
    return out


def _fake_ranking(h: Tensor, *shape: int) -> tuple[Tensor, Tensor]:
    sizes = (*h.shape[:2], *shape)
    return h.new_empty(sizes, dtype=torch.int64), h.new_empty(sizes, dtype=torch.float32)


@_op(
    f"top1_confidence(Tensor h, {_HEAD}, Tensor norm_weight, float eps) -> (Tensor, Tensor)",
    lambda h, *_: _fake_ranking(h),
)
def _top1_confidence(h: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *head, norm_weight, eps = rest
    tokens, confidence = _serve("top1_confidence", h)(h, DraftHead(*head), norm_weight, eps)
    return tokens, confidence


@_op(
    f"top1_confidence_append(Tensor h, {_HEAD}, Tensor norm_weight, float eps, {_CHAIN}) "
    "-> (Tensor, Tensor)",
    lambda h, *_: _fake_ranking(h),
)
def _top1_confidence_append(h: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    head, (norm_weight, eps), chain = rest[:3], rest[3:5], DraftChain(*rest[5:])
    op = _serve("top1_confidence", h)
    tokens, confidence = op(h, DraftHead(*head), norm_weight, eps, chain=chain)
    return tokens, confidence


@_op(
    f"topk_confidence(Tensor h, {_HEAD}, Tensor norm_weight, float eps, SymInt k) "
    "-> (Tensor, Tensor)",
    lambda h, *rest: _fake_ranking(h, rest[-1]),
)
def _topk_confidence(h: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *head, norm_weight, eps, k = rest
    tokens, confidence = _serve("topk_confidence", h)(h, DraftHead(*head), norm_weight, eps, k)
    return tokens, confidence


@_op(
    f"draft_logits(Tensor h, {_HEAD}, Tensor norm_weight, float eps) -> Tensor",
    lambda h, weight, scale, token_ids, *_: h.new_empty(
        *h.shape[:2], len(weight if token_ids is None else token_ids), dtype=torch.float32
    ),
)
def _draft_logits(h: Tensor, *rest: Any) -> Tensor:
    *head, norm_weight, eps = rest
    logits: Tensor = _serve("draft_logits", h)(h, DraftHead(*head), norm_weight, eps)
    return logits


@_op(
    f"draw_tokens({_DRAWN}) -> (Tensor, Tensor)",
    lambda logits, *rest: _fake_ranking(logits, rest[7]),
)
def _draw_tokens(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _drawn(logits, *rest)


@_op(
    f"draw_tokens_append({_DRAWN}, {_CHAIN}) -> (Tensor, Tensor)",
    lambda logits, *rest: _fake_ranking(logits, rest[7]),
)
def _draw_tokens_append(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _drawn(logits, *rest[:9], chain=DraftChain(*rest[9:]))


@_op(
    f"adapter_step(Tensor h, Tensor input_norm, Tensor qkv, Tensor o, {_CACHES}, {_NODES}, "
    "Tensor rope, float eps) -> Tensor",
    lambda h, *_: h.new_empty(h.shape),
)
def _adapter_step(h: Tensor, *rest: Any) -> Tensor:
    weights, caches, nodes, (rope, eps) = rest[:3], rest[3:5], rest[5:9], rest[9:]
    op = _serve("adapter_step", h, caches[0])
    out: Tensor = op(h, StepWeights(*weights), *caches, _nodes(*nodes), rope, eps=eps)
    return out


@_op(
    "adapter_refresh(Tensor h, Tensor h_deep, Tensor successor, Tensor input_norm, "
    f"Tensor deep_norm, Tensor successor_norm, Tensor deep_kv, {_CACHES}, {_NODES}, Tensor rope, "
    "float eps) -> ()",
    lambda *_: None,
)
def _adapter_refresh(h: Tensor, h_deep: Tensor, successor: Tensor, *rest: Any) -> None:
    weights, caches, nodes, (rope, eps) = rest[:4], rest[4:6], rest[6:10], rest[10:]
    op = _serve("adapter_refresh", h, caches[0])
    op((h, h_deep, successor), RefreshWeights(*weights), *caches, _nodes(*nodes), rope, eps=eps)


def _fake_verdict(
    logits: Tensor, tokens: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, Tensor, Tensor]:
    batch = len(tokens)
    path_len = tokens.new_empty(batch, dtype=torch.int32)
    return tokens.new_empty(tokens.shape), path_len, tokens.new_empty(batch)


@_op(
    "verify_tree(Tensor logits, Tensor tokens, Tensor parents, Tensor? num_nodes=None, *, "
    "Tensor? choices=None) -> (Tensor, Tensor, Tensor)",
    _fake_verdict,
)
def _verify_tree(logits: Tensor, *trees: Tensor | None, **made: Tensor) -> tuple[Tensor, ...]:
    return tuple(_serve("verify_tree", logits)(logits, *trees, **made))


@_op(
    "compact_kv(Tensor(a!)[] caches, Tensor path, Tensor path_len, Tensor cache_seqlens) -> ()",
    lambda *_: None,
)
def _compact_kv(caches: list[Tensor], *path: Tensor) -> None:
    if caches:
        _serve("compact_kv", caches[0])(caches, *path)


@_op(
    "commit_path(Tensor path, Tensor path_len, Tensor bonus, Tensor(a!) chain_tokens, "
    "Tensor(b!) chain_positions, Tensor(c!) chain_num_nodes, Tensor chain_stopped, "
    "Tensor chain_threshold, Tensor(d!) exit_states, Tensor(e!) cache_seqlens, "
    "Tensor(f!) positions, Tensor(g!) own_seqlens, Tensor(h!) own_positions, Tensor done, *, "
    "int lag, int limit) -> ()",
    lambda *_, **__: None,
)
def _commit_path(*args: Tensor, lag: int, limit: int) -> None:
    verdict, chain, (h, *slots, done) = Verdict(*args[:3]), DraftChain(*args[3:8]), args[8:]
    places = SlotPlaces(*slots[:2]), SlotPlaces(*slots[2:])
    _serve("commit_path", h)(verdict, chain, h, places, done, lag=lag, limit=limit)


@_op(
    "grow_tree(Tensor tokens, Tensor probabilities, Tensor(a!) place_tokens, "
    "Tensor(b!) place_positions, Tensor(c!) place_parents, Tensor(d!) place_ancestors, "
    "Tensor(e!) paths, Tensor(f!) sure, Tensor(g!) candidates, Tensor(h!) waiting, "
    "Tensor(i!) tree_tokens, Tensor(j!) tree_positions, Tensor(k!) num_nodes, "
    "Tensor(l!) stopped, Tensor threshold, Tensor(m!) parents, Tensor(n!) ancestors, *, "
    "int max_nodes, int first, int width, int passes_left, float sharpness) -> ()",
    lambda *_, **__: None,
)
def _grow_tree(tokens: Tensor, probabilities: Tensor, *args: Tensor, **rule: Any) -> None:
    trees = DraftTrees(DraftChain(*args[8:13]), *args[13:])
    op = _serve("grow_tree", probabilities)
    op(tokens, probabilities, Seedbed(*args[:8]), trees, **rule)


@_op(
    "copy_draft(Tensor(a!) text, Tensor path, Tensor path_len, Tensor bonus, "
    "Tensor(b!) tree_tokens, Tensor(c!) tree_positions, Tensor(d!) num_nodes, Tensor(e!) stopped, "
    "Tensor threshold, Tensor(f!) parents, Tensor(g!) ancestors, Tensor cache_seqlens, "
    "Tensor(h!) found, *, int size, int count) -> ()",
    lambda *_, **__: None,
)
def _copy_draft(text: Tensor, *args: Tensor, **rule: int) -> None:
    verdict, trees = Verdict(*args[:3]), DraftTrees(DraftChain(*args[3:8]), *args[8:10])
    _serve("copy_draft", args[7])(text, verdict, trees, *args[10:], **rule)


def _drawn(logits: Tensor, *rest: Any, chain: DraftChain | None = None) -> tuple[Tensor, Tensor]:
    draws, (positions, k, token_ids) = Draws(*rest[:6]), rest[6:]
    op = _serve("draw_tokens", logits)
    tokens, shares = op(logits, draws, positions, k, token_ids=token_ids, chain=chain)
    return tokens, shares


def _nodes(
    positions: Tensor, cache_seqlens: Tensor, first_node: int, ancestors: Tensor | None
) -> NodeBatch:
    return NodeBatch(positions, cache_seqlens, first_node, ancestors)
