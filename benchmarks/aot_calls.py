"""Calls of every Triton op, as models make them: what benchmarks/aot_report.py compiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from itertools import product
from typing import Any

import torch

from benchmarks.models import EPS, LLAMA_8B, QWEN3_8B, VICUNA_7B, Model
from kangaroo_kernels.adapter_weights import DrafterWeights, RefreshWeights, StepWeights
from kangaroo_kernels.draft_head import QUANTIZED, DraftChain, DraftHead
from kangaroo_kernels.draft_trees import DraftTrees, Seedbed, widths
from kangaroo_kernels.draws import Draw, Draws
from kangaroo_kernels.layer_weights import LayerWeights
from kangaroo_kernels.nodes import NodeBatch, SlotPlaces
from kangaroo_kernels.testing import Heads
from kangaroo_kernels.triton_head import FLOAT8_CAPABILITY
from kangaroo_kernels.verify_tree import Verdict

NUM_SLOTS = 8192
NUM_NODES = (1, 8, 16)
OTHER_HEADS = (Heads(32, 8, 64), Heads(32, 32, 80), Heads(40, 8, 96), Heads(8, 1, 256))


@dataclass(frozen=True)
class Call:
    """One call of an op; `case` says of which model. Of what is made of whole weights first,
    decoder_layers and draft_step, `method` is called with `then`.
    """

    op: str
    case: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    then: tuple[Any, ...] = ()
    method: str = "__call__"


def calls(dtype: torch.dtype, sm: int) -> Iterator[Call]:
    """Every op as models call it on `sm`, for a single row and for several. Memory is reserved,
    never touched.
    """

    def new(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    models = (VICUNA_7B, LLAMA_8B, QWEN3_8B)
    for model in models:
        yield from growth_calls(model.name, 16, 6)
        yield commit_call(model, new)
    yield from growth_calls("largest tree", 64, 8)
    yield copy_call()
    for model, n in product(models, NUM_NODES):
        yield from layer_calls(model, n, new)
        yield from draft_calls(model, n, new, sm)
        yield from draw_calls(model, n)
        yield from attention_calls(model.name, model.heads, n, new)
        yield from adapter_calls(model, n, new)
        if dtype == torch.bfloat16:
            yield from whole_calls(model, n, new)
    for heads, n in product(OTHER_HEADS, NUM_NODES):
        yield from attention_calls(f"D={heads.head_dim}", heads, n, new)


def layer_calls(model: Model, n: int, new: Callable[..., torch.Tensor]) -> Iterator[Call]:
    """What a layer of the target multiplies, and its first and last steps."""
    name, c, x, norm = model.name, model.hidden, new(1, n, model.hidden), new(model.hidden)
    one, ids = torch.ones(1, dtype=torch.int32), torch.zeros(1, n, dtype=torch.int64)
    qkv = {"norm_weight": norm, "eps": EPS}
    yield Call("embedding", name, (ids, new(model.vocab, c)))
    yield Call("linear", f"{name} qkv", (x, new(model.qkv_width, c)), qkv)
    logits = {**qkv, "out": torch.empty(1, n, model.vocab)}
    yield Call("linear", f"{name} logits", (x, new(model.vocab, c)), logits)
    yield Call("linear", f"{name} o", (x, new(c, c)), {"residual": x})
    mlp = (x, new(2 * model.ffn, c), new(c, model.ffn), norm, EPS)
    yield Call("gated_mlp", name, mlp)
    yield Call("rms_norm", name, (x, norm, EPS))
    trees, made = (new(1, n, model.vocab), ids, ids), {"successors": ids.clone()}
    yield Call("verify_tree", name, trees, made)
    yield Call("verify_tree", f"{name} choices", trees, {**made, "choices": ids.clone()})
    caches = [new(64, 1, model.heads.h_kv, NUM_SLOTS, 128), new(1, 1, 1, NUM_SLOTS, c)]
    yield Call("compact_kv", name, (caches, torch.zeros(1, 8, dtype=torch.int64), one, one))


def whole_calls(model: Model, n: int, new: Callable[..., torch.Tensor]) -> Iterator[Call]:
    """decoder_layers, twice the same one, and where a draft enters them."""
    c, heads, norm = model.hidden, model.heads, new(model.hidden)
    qkv, o = new(model.qkv_width, c), new(c, heads.h_q * heads.head_dim)
    norms = [new(heads.head_dim)] * 2 if model.family == "qwen3" else [None, None]
    mlp = new(2 * model.ffn, c), new(c, model.ffn)
    layer = LayerWeights(norm, qkv, o, norm, *mlp, q_norm=norms[0], k_norm=norms[1])
    rope, zeros = torch.empty(2, NUM_SLOTS, heads.head_dim // 2), torch.zeros(1, n).int()
    kv, nodes = new(4, 1, heads.h_kv, NUM_SLOTS, heads.head_dim), NodeBatch(zeros, zeros[0, :1])
    between = [triton_op(op) for op in ("rope_append_kv", "tree_attention")]
    made, h = ([layer] * 2, rope, EPS, *between), new(1, n, c)
    yield Call("decoder_layers", f"{model.name} layers", made, then=(h, 0, 2, kv, nodes))
    head = new(model.vocab, c)
    parts = DrafterWeights(2, head, StepWeights(norm, qkv, o), DraftHead(head), norm, EPS)
    enter = {"then": (zeros.long(), kv, nodes, h), "method": "enter"}
    whole = triton_op("decoder_layers")(*made)
    yield Call("draft_step", f"{model.name} draft step", (whole, parts), **enter)


def triton_op(op: str) -> Callable[..., Any]:
    """Triton's implementation, wherever it may run."""
    name = "TritonDraftStep" if op == "draft_step" else op
    module = import_module(f"kangaroo_kernels.{op}.triton_kernel")
    found: Callable[..., Any] = getattr(module, name)
    return found


def draft_calls(model: Model, n: int, new: Callable[..., torch.Tensor], sm: int) -> Iterator[Call]:
    """The ranking by every kind of head."""
    x, norm = new(1, n, model.hidden), new(model.hidden)
    for kind, head in draft_heads(model, new, sm):
        where = model.name + kind
        chain = DraftChain.of_roots(1, 7, 0.0, torch.device("cpu"))
        yield Call("top1_confidence", where, (x, head, norm, EPS), {"chain": chain})
        yield Call("topk_confidence", where, (x, head, norm, EPS, 10))
        yield Call("draft_logits", where, (x, head, norm, EPS))


def draw_calls(model: Model, n: int) -> Iterator[Call]:
    """draw_tokens of whole rows, and of a part of the vocabulary."""
    cpu = torch.device("cpu")
    draws, places = Draws.of([Draw()], cpu), torch.zeros(1, n, dtype=torch.int32)
    logits, ids = torch.empty(1, n, model.vocab), torch.arange(model.vocab).int()
    for k in (1, 10):
        yield Call("draw_tokens", f"{model.name} k={k}", (logits, draws, places, k))
    drafted = {"token_ids": ids, "chain": DraftChain.of_roots(1, 7, 0.0, cpu)}
    yield Call("draw_tokens", f"{model.name} ids", (logits, draws, places), drafted)


def draft_heads(
    model: Model, new: Callable[..., torch.Tensor], sm: int
) -> Iterator[tuple[str, DraftHead]]:
    """The target's own head, of some tokens, and the copies in one byte that `sm` reads."""
    head, shape = new(model.vocab, model.hidden), (model.vocab, model.hidden)
    yield "", DraftHead(head)
    yield " ids", DraftHead(head, token_ids=torch.arange(0, model.vocab, 4).int())
    for dtype in QUANTIZED if divmod(sm, 10) >= FLOAT8_CAPABILITY else QUANTIZED[:1]:
        short = str(dtype).removeprefix("torch.")
        yield f" {short}", DraftHead(torch.empty(shape, dtype=dtype), torch.empty(model.vocab))


def growth_calls(name: str, max_nodes: int, depth: int) -> Iterator[Call]:
    """grow_tree: a tree's first pass and a later one."""
    cpu, inner = torch.device("cpu"), widths(max_nodes, depth)
    trees = DraftTrees.of_roots(1, max_nodes, 0.0, cpu)
    bed = Seedbed.empty(1, 1 + sum(inner), 10, cpu)
    for first, num_new in ((0, 1), (1, inner[0])):
        ranked = torch.zeros(1, num_new, 10, dtype=torch.int64)
        rule = {"first": first, "width": 2, "passes_left": 3, "sharpness": 1.5}
        rule["max_nodes"] = max_nodes
        yield Call("grow_tree", name, (ranked, ranked.float(), bed, trees), rule)


def copy_call() -> Call:
    """copy_draft behind the last three tokens."""
    one = torch.ones(1, dtype=torch.int32)
    trees = DraftTrees.of_roots(1, 16, 0.0, one.device)
    verdict = Verdict(torch.zeros_like(trees.parents), one, trees.parents[:, 0].contiguous())
    args = (torch.ones(1, NUM_SLOTS, dtype=torch.int32), verdict, trees, one, one.clone())
    return Call("copy_draft", "16 nodes", args, {"size": 3, "count": 15})


def commit_call(model: Model, new: Callable[..., torch.Tensor]) -> Call:
    """commit_path of a chain."""
    one = torch.ones(1, dtype=torch.int32)
    chain = DraftChain.of_roots(1, 7, 0.0, one.device)
    places = [SlotPlaces(one.clone(), torch.zeros(1, 257, dtype=torch.int32)) for _ in range(2)]
    verdict = Verdict(torch.zeros_like(chain.tokens), one, chain.tokens[:, 0].contiguous())
    args = (verdict, chain, new(1, 65, model.hidden), tuple(places), one)
    return Call("commit_path", model.name, args, {"lag": 1, "limit": NUM_SLOTS})


def attention_calls(
    name: str, heads: Heads, n: int, new: Callable[..., torch.Tensor]
) -> Iterator[Call]:
    """tree_attention over a chain and a tree, rope_append_kv with and without norms."""
    cache = new(1, heads.h_kv, NUM_SLOTS, heads.head_dim)
    zeros = torch.zeros(1, n, dtype=torch.int32)
    chain = NodeBatch(zeros, zeros[0, :1], 16 - n)
    tree = NodeBatch(zeros, zeros[0, :1], 16 - n, torch.zeros(1, n, dtype=torch.int64))
    q = new(1, n, heads.h_q, heads.head_dim)
    for kind, nodes in (("chain", chain), ("tree", tree)):
        yield Call("tree_attention", f"{name} {kind}", (q, cache, cache, nodes, 1.0))
    qkv = new(1, n, (heads.h_q + 2 * heads.h_kv) * heads.head_dim)
    rope = torch.empty(2, NUM_SLOTS, heads.head_dim // 2)
    for kind, norm in (("", None), (" normed", new(heads.head_dim))):
        norms = {"q_norm": norm, "k_norm": norm, "eps": EPS}
        yield Call("rope_append_kv", name + kind, (qkv, cache, cache, chain, rope), norms)


def adapter_calls(model: Model, n: int, new: Callable[..., torch.Tensor]) -> Iterator[Call]:
    """adapter_step and adapter_refresh."""
    c, heads = model.hidden, model.heads
    h, norm, cache = new(1, n, c), new(c), new(1, heads.h_kv, NUM_SLOTS, heads.head_dim)
    zeros = torch.zeros(1, n, dtype=torch.int32)
    rope = torch.empty(2, NUM_SLOTS, heads.head_dim // 2)
    where = (cache, cache, NodeBatch(zeros, zeros[0, :1]), rope)
    step = StepWeights(norm, new(model.qkv_width, c), new(c, heads.h_q * heads.head_dim))
    yield Call("adapter_step", model.name, (h, step, *where), {"eps": EPS})
    deep = RefreshWeights(norm, norm, norm, new(2 * heads.h_kv * heads.head_dim, 3 * c))
    yield Call("adapter_refresh", model.name, ((h, h, h), deep, *where), {"eps": EPS})
