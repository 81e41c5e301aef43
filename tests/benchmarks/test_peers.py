"""Peers do the work that they are raced at; those for a GPU are checked where there is one."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import Setting
from benchmarks.models import SWEEPS
from benchmarks.peers import attention_peers, rms_norm_peers, rope_append
from kangaroo_kernels import testing
from kangaroo_kernels.reference_math import rms_normalize, rope_append_kv, tree_attention
from kangaroo_kernels.testing import Heads

HEADS = [Heads(4, 4, 16), Heads(4, 2, 16)]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def setting(request: pytest.FixtureRequest) -> Setting:
    dtype = torch.float32 if request.param == "cpu" else torch.bfloat16
    return Setting(torch.device(request.param), dtype, 1, SWEEPS["cpu"], compiled=False)


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("kind", ["chain", "tree"])
def test_attention(setting: Setting, heads: Heads, kind: str) -> None:
    lens = [70, 70]
    nodes = testing.chain_nodes(lens, 5)
    if kind == "tree":
        nodes = testing.tree_nodes(testing.random_parents(2, 5), lens)
    inputs = testing.attention_inputs(heads, nodes, setting.dtype)
    caches = inputs.k_cache, inputs.v_cache
    ours = tree_attention(inputs.q, *caches, nodes, inputs.scale)
    for call in attention_peers(setting, inputs).values():
        torch.testing.assert_close(call(inputs.q, *caches), ours)


def test_rms_norm(setting: Setting) -> None:
    x, weight = torch.randn(2, 3, 64).to(setting.dtype), torch.rand(64).to(setting.dtype)
    for call in rms_norm_peers(setting, 1e-5).values():
        torch.testing.assert_close(call(x, weight), rms_normalize(x, weight, 1e-5))


def test_rope_append() -> None:
    heads, context, n = HEADS[1], 60, 3
    cache = torch.zeros(1, heads.h_kv, testing.num_slots_for(context + n), heads.head_dim)
    qkv = torch.randn(1, n, (heads.h_q + 2 * heads.h_kv) * heads.head_dim)
    rope, nodes = testing.rope_table(context + n, 16), testing.chain_nodes([context], n)
    results = []
    for call in (rope_append_kv, rope_append(rope, n, torch.float32)):
        caches = cache.clone(), cache.clone()
        results.append([call(qkv, *caches, nodes, rope), *caches])
    results[1][0] = results[1][0].transpose(1, 2)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours)
