"""Attention sums in path order, whoever serves it: a node of a tree has the bits of the chain that
leads to it, and of the next root once that chain is committed.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kangaroo_kernels import testing
from kangaroo_kernels.testing import AttentionInputs, Heads
from kangaroo_kernels.tree_attention import TreeAttention
from tests.kernels import naive

# Trees inside a chunk, over the end of a chunk, and over the end of a split.
PREFIXES = (0, 5, 60, 250, 256)
NUM_NODES = 9

pytestmark = pytest.mark.bitwise


def as_chain(inputs: AttentionInputs, node: int) -> AttentionInputs:
    """The cache and the queries as if the node's ancestors had been the only nodes."""
    committed = int(inputs.nodes.cache_seqlens)
    path = [slot for slot in naive.visible_slots(inputs.nodes, 0, node) if slot >= committed]
    caches = [cache.clone() for cache in (inputs.k_cache, inputs.v_cache)]
    for cache in caches:
        cache[:, :, committed:] = torch.nan
    for own, original in zip(caches, (inputs.k_cache, inputs.v_cache), strict=True):
        own[:, :, committed : committed + len(path)] = original[:, :, path]
    q = inputs.q[:, [slot - committed for slot in path]].contiguous()
    nodes = testing.chain_nodes([committed], len(path))
    return AttentionInputs(q, *caches, nodes, inputs.scale)


def last_row(tree_attention: TreeAttention, inputs: AttentionInputs) -> Tensor:
    q, k_cache, v_cache = inputs.q, inputs.k_cache, inputs.v_cache
    return tree_attention(q, k_cache, v_cache, inputs.nodes, inputs.scale)[0, -1]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("heads", [Heads(2, 1, 16), Heads(2, 2, 40)], ids=str)
def test_a_node_has_the_bits_of_its_path(
    tree_attention: TreeAttention, heads: Heads, prefix: int
) -> None:
    nodes = testing.tree_nodes(testing.random_parents(1, NUM_NODES), [prefix])
    inputs = testing.attention_inputs(heads, nodes)
    in_tree = tree_attention(inputs.q, inputs.k_cache, inputs.v_cache, nodes, inputs.scale)[0]
    for node in range(0, NUM_NODES, 2):
        chain = as_chain(inputs, node)
        testing.assert_same_bits(last_row(tree_attention, chain), in_tree[node])
        length = chain.q.shape[1]
        root = testing.chain_nodes([prefix + length - 1], 1)
        alone = replace(chain, q=chain.q[:, -1:].contiguous(), nodes=root)
        testing.assert_same_bits(last_row(tree_attention, alone), in_tree[node])


def test_the_order_of_slots_does_not_show(tree_attention: TreeAttention) -> None:
    """The same tree with its nodes in another order: siblings and cousins swap places."""
    parents = torch.tensor([[-1, 0, 0, 1, 2, 3]])
    nodes = testing.tree_nodes(parents, [62])
    inputs = testing.attention_inputs(Heads(2, 1, 16), nodes)
    before = tree_attention(inputs.q, inputs.k_cache, inputs.v_cache, nodes, inputs.scale)
    order = [0, 2, 1, 4, 3, 5]
    swapped = testing.tree_nodes(torch.tensor([[-1, 0, 0, 1, 2, 4]]), [62])
    slots = [62 + node for node in order]
    k_cache, v_cache = inputs.k_cache.clone(), inputs.v_cache.clone()
    k_cache[:, :, 62:68], v_cache[:, :, 62:68] = k_cache[:, :, slots], v_cache[:, :, slots]
    q = inputs.q[:, order].contiguous()
    after = tree_attention(q, k_cache, v_cache, swapped, inputs.scale)
    testing.assert_same_bits(after, before[:, order])
