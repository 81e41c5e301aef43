"""adapter_refresh: every implementation against float64; a row's bits, however many are written."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kangaroo_kernels import testing
from kangaroo_kernels.adapter_refresh import AdapterRefresh
from kangaroo_kernels.adapter_weights import RefreshWeights
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.testing import Heads
from tests.kernels import laws, naive
from tests.kernels.adapters import EPS, PLACES, SIZES, AdapterInputs, refresh_inputs

STATES = ("h", "h_deep", "successor")


@pytest.mark.parametrize(("heads", "width"), SIZES, ids=str)
@pytest.mark.thorough
def test_error_budget(
    adapter_refresh: AdapterRefresh, dtype: torch.dtype, heads: Heads, width: int
) -> None:
    keys, values = testing.Budget(), testing.Budget()
    for place in PLACES:
        inputs = refresh_inputs(heads, width, testing.chain_nodes(*place), dtype)
        own, low, wide = inputs.cloned(), inputs.cloned(), inputs.widened()
        adapter_refresh(*own.args, eps=EPS)
        naive.adapter_refresh(*low.args, eps=EPS)
        naive.adapter_refresh(*wide.args, eps=EPS)
        written = (wide.k_cache != inputs.k_cache).any(-1)
        assert torch.equal((own.k_cache != inputs.k_cache).any(-1), written)
        keys.add(own.k_cache[written], wide.k_cache[written], low.k_cache[written])
        values.add(own.v_cache[written], wide.v_cache[written], low.v_cache[written])
        testing.assert_same_bits(own.v_cache[~written], inputs.v_cache[~written])
    keys.check()
    values.check()


@pytest.mark.parametrize(("heads", "width"), SIZES, ids=str)
@pytest.mark.thorough
def test_bits_do_not_depend_on_how_many(
    adapter_refresh: AdapterRefresh, heads: Heads, width: int
) -> None:
    inputs = refresh_inputs(heads, width, testing.chain_nodes((61, 7), 18, first_node=1))
    pieces = inputs.cloned()
    adapter_refresh(*inputs.args, eps=EPS)
    start = 0
    for size in (1, 2, 3, 5, 7):
        rows = slice(start, start + size)
        states = tuple(h[:, rows].contiguous() for h in inputs.first)
        positions = inputs.nodes.positions[:, rows].contiguous()
        nodes = NodeBatch(positions, inputs.nodes.cache_seqlens, 1 + start)
        adapter_refresh(*replace(pieces, first=states, nodes=nodes).args, eps=EPS)
        start += size
    assert start == 18
    testing.assert_same_bits(pieces.k_cache, inputs.k_cache)
    testing.assert_same_bits(pieces.v_cache, inputs.v_cache)


@pytest.mark.thorough
def test_thread_invariance(adapter_refresh: AdapterRefresh) -> None:
    heads, width = SIZES[0]
    inputs = refresh_inputs(heads, width, testing.chain_nodes((61, 7), 5))

    def run() -> torch.Tensor:
        own = inputs.cloned()
        adapter_refresh(*own.args, eps=EPS)
        return own.k_cache

    laws.check_thread_invariance(run)


@pytest.mark.parametrize("name", [*STATES, *RefreshWeights._fields, "k_cache", "v_cache", "rope"])
def test_bad_inputs(fast_adapter_refresh: AdapterRefresh, name: str) -> None:
    heads, width = SIZES[0]
    inputs = refresh_inputs(heads, width, testing.chain_nodes((61, 7), 3))
    before, bad = inputs.cloned(), torch.zeros(2, 3, 5)
    if name in STATES:
        states = {**dict(zip(STATES, inputs.first, strict=True)), name: bad}
        wrong = replace(inputs, first=tuple(states.values()))
    elif name in ("k_cache", "v_cache", "rope"):
        wrong = replace(inputs, **{name: torch.zeros(2, 3, 64, 16)[: 2 if name != "rope" else 1]})
    else:
        wrong = replace(inputs, weights=inputs.weights._replace(**{name: bad}))
    says = {"h": "h|h_deep|successor", "k_cache": "[kv]_cache", "v_cache": "[kv]_cache"}.get(
        name, name
    )
    with pytest.raises(ValueError, match=rf"\b(?:{says})\b.*expected.*got"):
        fast_adapter_refresh(*wrong.args, eps=EPS)
    unchanged(inputs, before)


@pytest.mark.parametrize("seqlens", [(5, 126), (-1, 5)], ids=str)
def test_slots_beyond_the_cache(
    fast_adapter_refresh: AdapterRefresh, seqlens: tuple[int, int]
) -> None:
    laws.needs_values_on_the_host()
    heads, width = SIZES[0]
    inputs = refresh_inputs(heads, width, testing.chain_nodes((61, 7), 3))
    before = inputs.cloned()
    nodes = replace(testing.chain_nodes(seqlens, 3), positions=inputs.nodes.positions)
    with pytest.raises(ValueError, match=r"cache_seqlens.*expected.*got"):
        fast_adapter_refresh(*replace(inputs, nodes=nodes).args, eps=EPS)
    unchanged(inputs, before)


def unchanged(inputs: AdapterInputs, before: AdapterInputs) -> None:
    testing.assert_same_bits(inputs.k_cache, before.k_cache)
    testing.assert_same_bits(inputs.v_cache, before.v_cache)
