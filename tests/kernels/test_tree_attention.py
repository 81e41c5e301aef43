"""tree_attention: every implementation against float64 softmax over the visible slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo_kernels import testing
from kangaroo_kernels.nodes import MAX_TREE_NODES, NodeBatch
from kangaroo_kernels.testing import AttentionInputs, Heads
from kangaroo_kernels.tree_attention import TreeAttention
from tests.kernels import laws, naive

MHA, GQA, MQA = Heads(3, 3, 64), Heads(6, 2, 40), Heads(5, 1, 80)
HEADS = [MHA, GQA, MQA, Heads(4, 2, 16)]
# (cache_seqlens, number of nodes, first_node)
PLACES = [
    ((0,), 1, 0),
    ((63,), 2, 0),
    ((64,), 3, 0),
    ((70,), 5, 7),
    ((200, 3), 16, 0),
    ((5, 130), 17, 20),
    ((0, 61), 65, 0),
]


def run(tree_attention: TreeAttention, inputs: AttentionInputs) -> Tensor:
    return tree_attention(inputs.q, inputs.k_cache, inputs.v_cache, inputs.nodes, inputs.scale)


def add_to(budget: testing.Budget, actual: Tensor, inputs: AttentionInputs) -> None:
    tensors = inputs.q, inputs.k_cache, inputs.v_cache
    exact = naive.tree_attention(*testing.widen(*tensors), inputs.nodes, inputs.scale)
    budget.add(actual, exact, naive.tree_attention(*tensors, inputs.nodes, inputs.scale))


def random_tree_nodes(
    cache_seqlens: Sequence[int], num_nodes: int, first_node: int = 0
) -> NodeBatch:
    parents = testing.random_parents(len(cache_seqlens), first_node + num_nodes)
    return testing.tree_nodes(parents, cache_seqlens, first_node)


def nodes_from(nodes: NodeBatch, start: int, stop: int) -> NodeBatch:
    """The nodes `start` to `stop - 1` of a call as a call of their own."""
    masks = None if nodes.ancestors is None else nodes.ancestors[:, start:stop].contiguous()
    positions = nodes.positions[:, start:stop].contiguous()
    return NodeBatch(positions, nodes.cache_seqlens, nodes.first_node + start, masks)


def part(inputs: AttentionInputs, start: int, stop: int) -> AttentionInputs:
    q = inputs.q[:, start:stop].contiguous()
    return replace(inputs, q=q, nodes=nodes_from(inputs.nodes, start, stop))


def test_prefixes_of_many_chunks(tree_attention: TreeAttention) -> None:
    """So many that their partial results are not combined at once, beside one of a few."""
    budget = testing.Budget()
    nodes = random_tree_nodes((2200, 70), 3)
    inputs = testing.attention_inputs(Heads(2, 1, 16), nodes, torch.float32)
    add_to(budget, run(tree_attention, inputs), inputs)
    budget.check()


@pytest.mark.bitwise
def test_nodes_behind_many_chunks_have_the_bits_of_roots(tree_attention: TreeAttention) -> None:
    """Also where the slots are cut into longer pieces from there on."""
    nodes = testing.chain_nodes((2045,), 6)
    inputs = testing.attention_inputs(Heads(2, 1, 16), nodes, torch.float32)
    whole = run(tree_attention, inputs)
    for node in range(6):
        root = replace(part(inputs, node, node + 1), nodes=testing.chain_nodes((2045 + node,), 1))
        testing.assert_same_bits(run(tree_attention, root)[:, 0], whole[:, node])


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.thorough
def test_error_budget_of_chains(
    tree_attention: TreeAttention, dtype: torch.dtype, heads: Heads
) -> None:
    budget = testing.Budget()
    for place in PLACES:
        inputs = testing.attention_inputs(heads, testing.chain_nodes(*place), dtype)
        add_to(budget, run(tree_attention, inputs), inputs)
    budget.check()


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.thorough
def test_error_budget_of_trees(
    tree_attention: TreeAttention, dtype: torch.dtype, heads: Heads
) -> None:
    budget = testing.Budget()
    for cache_seqlens, num_nodes, first_node in PLACES[:-1]:
        nodes = random_tree_nodes(cache_seqlens, num_nodes, first_node)
        inputs = testing.attention_inputs(heads, nodes, dtype)
        add_to(budget, run(tree_attention, inputs), inputs)
    budget.check()


@pytest.mark.thorough
def test_the_largest_tree(tree_attention: TreeAttention) -> None:
    """Node 63 is the sign bit of a mask."""
    budget = testing.Budget()
    for first_node in (0, 40, 63):
        nodes = random_tree_nodes((61, 3), MAX_TREE_NODES - first_node, first_node)
        inputs = testing.attention_inputs(GQA, nodes)
        add_to(budget, run(tree_attention, inputs), inputs)
    budget.check()


@pytest.mark.thorough
def test_peaked_and_huge_scores(tree_attention: TreeAttention) -> None:
    """Scores of hundreds: one slot takes all the weight, and later chunks raise the maximum."""
    budget = testing.Budget()
    for place in PLACES:
        inputs = testing.attention_inputs(MHA, testing.chain_nodes(*place))
        inputs = replace(inputs, q=inputs.q * 50)
        add_to(budget, run(tree_attention, inputs), inputs)
    budget.check()


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("kind", ["chain", "tree"])
@pytest.mark.bitwise
@pytest.mark.thorough
def test_a_node_alone_and_among_others(
    tree_attention: TreeAttention, heads: Heads, kind: str
) -> None:
    make_nodes = testing.chain_nodes if kind == "chain" else random_tree_nodes
    inputs = testing.attention_inputs(heads, make_nodes((61, 130), 17, 2))
    check_row_invariance(tree_attention, inputs)


@pytest.mark.bitwise
@pytest.mark.thorough
def test_a_node_alone_and_among_others_in(
    tree_attention: TreeAttention, dtype: torch.dtype
) -> None:
    inputs = testing.attention_inputs(GQA, random_tree_nodes((61, 130), 17, 2), dtype)
    check_row_invariance(tree_attention, inputs)


def check_row_invariance(tree_attention: TreeAttention, inputs: AttentionInputs) -> None:
    """N in 1..17, at any place among the others, with nodes following or not, B = 1 or 2."""
    together = run(tree_attention, inputs)
    for size in range(1, 17):
        start = 7 * size % (18 - size)
        some = run(tree_attention, part(inputs, start, start + size))
        testing.assert_same_bits(some, together[:, start : start + size])
    for b in range(2):
        rows = slice(b, b + 1)
        masks = None if inputs.nodes.ancestors is None else inputs.nodes.ancestors[rows]
        nodes = NodeBatch(inputs.nodes.positions[rows], inputs.nodes.cache_seqlens[rows], 2, masks)
        k_cache, v_cache = inputs.k_cache[rows].clone(), inputs.v_cache[rows].clone()
        alone = tree_attention(inputs.q[rows].clone(), k_cache, v_cache, nodes, inputs.scale)
        testing.assert_same_bits(alone, together[rows])


@pytest.mark.parametrize("junk", [0.0, 1e4, float("inf"), float("nan")])
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.bitwise
@pytest.mark.thorough
def test_invisible_slots_do_not_show(
    tree_attention: TreeAttention, heads: Heads, junk: float
) -> None:
    """Slots behind the nodes and slots of nodes that are no ancestors may hold anything."""
    inputs = testing.attention_inputs(heads, random_tree_nodes((61, 130), 17, 2))
    expected = run(tree_attention, inputs)
    for node in (0, 5, 16):
        k_cache, v_cache = inputs.k_cache.clone(), inputs.v_cache.clone()
        for b in range(2):
            seen = naive.visible_slots(inputs.nodes, b, node)
            hidden = [slot for slot in range(k_cache.shape[2]) if slot not in seen]
            k_cache[b, :, hidden] = v_cache[b, :, hidden] = junk
        changed = run(tree_attention, replace(inputs, k_cache=k_cache, v_cache=v_cache))
        testing.assert_same_bits(changed[:, node], expected[:, node])


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.bitwise
@pytest.mark.thorough
def test_a_chain_is_a_tree_of_width_one(
    tree_attention: TreeAttention, dtype: torch.dtype, heads: Heads
) -> None:
    for cache_seqlens, num_nodes, first_node in PLACES[:-1]:
        chain = testing.chain_nodes(cache_seqlens, num_nodes, first_node)
        parents = torch.arange(-1, first_node + num_nodes - 1).repeat(len(cache_seqlens), 1)
        tree = testing.tree_nodes(parents, cache_seqlens, first_node)
        testing.assert_same_bits(tree.positions, chain.positions)
        inputs = testing.attention_inputs(heads, chain, dtype)
        as_tree = run(tree_attention, replace(inputs, nodes=tree))
        testing.assert_same_bits(as_tree, run(tree_attention, inputs))


@pytest.mark.parametrize("sizes", [[50, 50], [1, 99], [64, 36], [33, 1, 16, 17, 3, 30], [1] * 100])
@pytest.mark.bitwise
@pytest.mark.thorough
def test_prefill_in_pieces(tree_attention: TreeAttention, sizes: list[int]) -> None:
    """One call of 100 nodes and calls of any sizes, as parts of a chain or each committed first."""
    inputs = testing.attention_inputs(GQA, testing.chain_nodes((37,), 100))
    whole = run(tree_attention, inputs)
    start = 0
    for size in sizes:
        expected = whole[:, start : start + size]
        piece = part(inputs, start, start + size)
        testing.assert_same_bits(run(tree_attention, piece), expected)
        committed = NodeBatch(piece.nodes.positions, inputs.nodes.cache_seqlens + start)
        testing.assert_same_bits(run(tree_attention, replace(piece, nodes=committed)), expected)
        start += size
    assert start == 100


def test_capacity_does_not_show(tree_attention: TreeAttention) -> None:
    """A longer cache, with junk in the room behind, changes no bit."""
    inputs = testing.attention_inputs(GQA, testing.chain_nodes((61, 130), 5))
    caches = [
        torch.cat([cache, torch.full_like(cache, float("nan"))], dim=2)
        for cache in (inputs.k_cache, inputs.v_cache)
    ]
    longer = replace(inputs, k_cache=caches[0], v_cache=caches[1])
    testing.assert_same_bits(run(tree_attention, longer), run(tree_attention, inputs))


@pytest.mark.parametrize("num_nodes", [1, 3])
@pytest.mark.bitwise
@pytest.mark.thorough
def test_thread_invariance(tree_attention: TreeAttention, num_nodes: int) -> None:
    inputs = testing.attention_inputs(MHA, testing.chain_nodes((200, 3), num_nodes))
    laws.check_thread_invariance(lambda: run(tree_attention, inputs))


def as_arguments(inputs: AttentionInputs) -> dict[str, Any]:
    return dict(inputs.__dict__)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("q", torch.zeros(2, 3, 5, 40)),  # 5 heads over 2
        ("q", torch.zeros(2, 3, 6, 41)),
        ("q", torch.zeros(2, 3, 6, 40, dtype=torch.float64)),
        ("k_cache", torch.zeros(2, 2, 100, 40)),  # not whole chunks
        ("v_cache", torch.zeros(2, 2, 64, 40)),
    ],
)
def test_bad_inputs(fast_tree_attention: TreeAttention, name: str, bad: Tensor) -> None:
    inputs = testing.attention_inputs(GQA, testing.chain_nodes((5, 6), 3))
    says = {"q": "q|q_heads", "k_cache": "[kv]_cache", "v_cache": "[kv]_cache"}[name]
    laws.check_refusal(fast_tree_attention, as_arguments(inputs), name, bad, says=says)


BAD_NODES = {
    "cache_seqlens dtype": {"cache_seqlens": torch.tensor([5, 6])},
    "cache_seqlens shape": {"cache_seqlens": torch.tensor([5, 6, 7], dtype=torch.int32)},
    "cache_seqlens beyond": {"cache_seqlens": torch.tensor([5, 126], dtype=torch.int32)},
    "cache_seqlens below": {"cache_seqlens": torch.tensor([5, -1], dtype=torch.int32)},
    "ancestors dtype": {"ancestors": torch.ones(2, 3, dtype=torch.int32)},
    "ancestors shape": {"ancestors": torch.ones(2, 4, dtype=torch.int64)},
}


@pytest.mark.parametrize("what", BAD_NODES)
def test_bad_nodes(fast_tree_attention: TreeAttention, what: str) -> None:
    if what.split()[1] in ("beyond", "below"):
        laws.needs_values_on_the_host()
    inputs = testing.attention_inputs(GQA, testing.chain_nodes((5, 6), 3))
    bad = replace(inputs.nodes, **BAD_NODES[what])
    says = what.split()[0]
    laws.check_refusal(fast_tree_attention, as_arguments(inputs), "nodes", bad, says=says)
