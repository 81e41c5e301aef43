"""adapter_step: every implementation against float64, in place, row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kangaroo_kernels import testing
from kangaroo_kernels.adapter_step import AdapterStep
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.testing import Heads
from tests.kernels import laws, naive
from tests.kernels.adapters import EPS, PLACES, SIZES, step_inputs


@pytest.mark.parametrize(("heads", "width"), SIZES, ids=str)
@pytest.mark.thorough
def test_error_budget(
    adapter_step: AdapterStep, dtype: torch.dtype, heads: Heads, width: int
) -> None:
    outs, keys, values = testing.Budget(), testing.Budget(), testing.Budget()
    for place in PLACES:
        inputs = step_inputs(heads, width, testing.chain_nodes(*place), dtype)
        own, low, wide = inputs.cloned(), inputs.cloned(), inputs.widened()
        out = adapter_step(*own.args, eps=EPS)
        exact = naive.adapter_step(*wide.args, eps=EPS)
        outs.add(out, exact, naive.adapter_step(*low.args, eps=EPS))
        changed = own.k_cache != inputs.k_cache
        assert changed.any(-1).sum() == out.shape[0] * out.shape[1] * heads.h_kv
        keys.add(own.k_cache, wide.k_cache, low.k_cache)
        values.add(own.v_cache, wide.v_cache, low.v_cache)
    for budget in (outs, keys, values):
        budget.check()


def test_trees(adapter_step: AdapterStep) -> None:
    heads, width = SIZES[1]
    parents = testing.random_parents(2, 9)
    inputs = step_inputs(heads, width, testing.tree_nodes(parents, (61, 7), first_node=2))
    own, low, wide = inputs.cloned(), inputs.cloned(), inputs.widened()
    out = adapter_step(*own.args, eps=EPS)
    exact = naive.adapter_step(*wide.args, eps=EPS)
    testing.assert_within_budget(out, exact, naive.adapter_step(*low.args, eps=EPS))


@pytest.mark.parametrize(("heads", "width"), SIZES, ids=str)
@pytest.mark.thorough
def test_a_node_alone_and_among_others(adapter_step: AdapterStep, heads: Heads, width: int) -> None:
    """A chain at once, and node by node: the one-behind case of a fully accepted round."""
    inputs = step_inputs(heads, width, testing.chain_nodes((61, 7), 18, first_node=1))
    one_by_one = inputs.cloned()
    together = adapter_step(*inputs.args, eps=EPS)
    for i in range(18):
        positions = inputs.nodes.positions[:, i : i + 1].contiguous()
        nodes = NodeBatch(positions, inputs.nodes.cache_seqlens, 1 + i)
        h = inputs.first[:, i : i + 1].contiguous()
        single = replace(one_by_one, first=h, nodes=nodes)
        out = adapter_step(*single.args, eps=EPS)
        testing.assert_same_bits(out[:, 0], together[:, i])
    testing.assert_same_bits(one_by_one.k_cache, inputs.k_cache)
    testing.assert_same_bits(one_by_one.v_cache, inputs.v_cache)


@pytest.mark.thorough
def test_thread_invariance(adapter_step: AdapterStep) -> None:
    heads, width = SIZES[0]
    inputs = step_inputs(heads, width, testing.chain_nodes((61, 7), 5))
    laws.check_thread_invariance(lambda: adapter_step(*inputs.cloned().args, eps=EPS))


BAD = {
    "h": torch.zeros(2, 3, 49),
    "k_cache": torch.zeros(2, 3, 64, 16),
    "v_cache": torch.zeros(2, 3, 64, 16),
    "rope": torch.zeros(2, 300, 9),
}


@pytest.mark.parametrize("name", [*BAD, "input_norm", "qkv", "o"])
def test_bad_inputs(fast_adapter_step: AdapterStep, name: str) -> None:
    """Refused before anything is written."""
    heads, width = SIZES[0]
    inputs = step_inputs(heads, width, testing.chain_nodes((61, 7), 3))
    names = ("h", "weights", "k_cache", "v_cache", "nodes", "rope")
    arguments: dict[str, Any] = dict(zip(names, inputs.args, strict=True))
    before = inputs.cloned()
    if name in BAD:
        bad, replaced = BAD[name], name
    else:
        bad, replaced = inputs.weights._replace(**{name: torch.zeros(7, 48)}), "weights"
    says = {"k_cache": "[kv]_cache", "v_cache": "[kv]_cache", "h": "h|input_norm"}.get(name, name)
    with pytest.raises(ValueError, match=rf"\b(?:{says})\b.*expected.*got"):
        fast_adapter_step(**{**arguments, replaced: bad}, eps=EPS)
    testing.assert_same_bits(inputs.k_cache, before.k_cache)
    testing.assert_same_bits(inputs.v_cache, before.v_cache)


@pytest.mark.parametrize("place", [((5, 126), 3, 0), ((5, 120), 3, 6), ((-1, 5), 3, 0)], ids=str)
def test_slots_beyond_the_cache(fast_adapter_step: AdapterStep, place: Any) -> None:
    laws.needs_values_on_the_host()
    heads, width = SIZES[0]
    inputs = step_inputs(heads, width, testing.chain_nodes((61, 7), 3))
    nodes = replace(testing.chain_nodes(*place), positions=inputs.nodes.positions)
    with pytest.raises(ValueError, match=r"cache_seqlens.*expected.*got"):
        fast_adapter_step(*replace(inputs, nodes=nodes).args, eps=EPS)
