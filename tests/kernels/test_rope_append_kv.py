"""rope_append_kv: every implementation against float64; only the slots of the nodes are written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo_kernels import testing
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.rope_append_kv import RopeAppendKV
from kangaroo_kernels.testing import Heads
from tests.kernels import laws, naive

EPS = 1e-6
NUM_POSITIONS = 300
HEADS = [Heads(3, 3, 64), Heads(4, 2, 16), Heads(5, 1, 40), Heads(0, 2, 80), Heads(8, 2, 2)]
# (cache_seqlens, number of nodes, first_node)
PLACES = [
    ((0,), 1, 0),
    ((63,), 2, 0),
    ((5,), 3, 4),
    ((61, 7), 5, 2),
    ((0, 130), 65, 0),
    ((9, 2), 17, 1),
]


@dataclass(frozen=True)
class Case:
    """Arguments of the op."""

    qkv: Tensor
    k_cache: Tensor
    v_cache: Tensor
    nodes: NodeBatch
    rope: Tensor
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None
    eps: float = EPS

    def arguments(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def written(self) -> Tensor:
        """[B, 1, S, 1] bool: the slots of the nodes."""
        first = (self.nodes.cache_seqlens + self.nodes.first_node)[:, None]
        slot = torch.arange(self.k_cache.shape[2])
        return ((slot >= first) & (slot < first + self.qkv.shape[1]))[:, None, :, None]


def make_case(
    heads: Heads, nodes: NodeBatch, dtype: torch.dtype = torch.float32, norms: bool = False
) -> Case:
    batch, num_nodes = nodes.positions.shape
    used = int(nodes.cache_seqlens.max()) + nodes.first_node + num_nodes
    shape = (batch, heads.h_kv, testing.num_slots_for(used), heads.head_dim)
    width = (heads.h_q + 2 * heads.h_kv) * heads.head_dim
    case = Case(
        qkv=torch.randn(batch, num_nodes, width).to(dtype),
        k_cache=testing.NOISE_STD * torch.randn(shape).to(dtype),
        v_cache=testing.NOISE_STD * torch.randn(shape).to(dtype),
        nodes=nodes,
        rope=testing.rope_table(NUM_POSITIONS, heads.head_dim),
    )
    if not norms:
        return case
    weights = [testing.random_norm_weight(heads.head_dim, dtype) for _ in range(2)]
    return replace(case, q_norm=weights[0], k_norm=weights[1])


def rotated(case: Case, wide: bool) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v [B, N, H, D] by naive maths, in float64 or in the dtype of qkv."""
    tensors = case.qkv, case.rope.to(case.qkv.dtype), case.q_norm, case.k_norm
    if wide:
        tensors = testing.widen(case.qkv, case.rope, case.q_norm, case.k_norm)
    qkv, rope, q_norm, k_norm = tensors
    h_kv, head_dim = case.k_cache.shape[1], case.k_cache.shape[3]
    heads = qkv.unflatten(-1, (-1, head_dim))
    q, k, v = heads[:, :, : -2 * h_kv], heads[:, :, -2 * h_kv : -h_kv], heads[:, :, -h_kv:]
    q = q if q_norm is None else naive.rms_norm(q, q_norm, EPS)
    k = k if k_norm is None else naive.rms_norm(k, k_norm, EPS)
    cos, sin = rope[:, case.nodes.positions.long()]
    return naive.rotate(q, cos, sin), naive.rotate(k, cos, sin), v


@pytest.mark.parametrize("norms", [False, True], ids=["", "qk_norm"])
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.thorough
def test_error_budget(
    rope_append_kv: RopeAppendKV, dtype: torch.dtype, heads: Heads, norms: bool
) -> None:
    queries, keys = testing.Budget(), testing.Budget()
    for place in PLACES:
        case = make_case(heads, testing.chain_nodes(*place), dtype, norms)
        k_before, v_before = case.k_cache.clone(), case.v_cache.clone()
        q = rope_append_kv(**case.arguments())
        exact, low = rotated(case, wide=True), rotated(case, wide=False)
        queries.add(q, exact[0], low[0])
        written = case.written().expand_as(case.k_cache)
        row_shape = (len(q), heads.h_kv, q.shape[1], heads.head_dim)
        new_keys = case.k_cache[written].view(row_shape).transpose(1, 2)
        keys.add(new_keys, exact[1], low[1])
        new_values = case.v_cache[written].view(row_shape).transpose(1, 2)
        testing.assert_same_bits(new_values, low[2])
        testing.assert_same_bits(case.k_cache[~written], k_before[~written])
        testing.assert_same_bits(case.v_cache[~written], v_before[~written])
    keys.check()
    if heads.h_q:
        queries.check()
    else:
        assert q.shape == (2, 17, 0, heads.head_dim)


def test_positions_are_not_slots(rope_append_kv: RopeAppendKV) -> None:
    """Siblings of a tree share a position; positions may also be anything else."""
    nodes = testing.tree_nodes(torch.tensor([[-1, 0, 0, 1, 1, 2]]), [70], first_node=1)
    case = make_case(HEADS[0], replace(nodes, positions=nodes.positions * 3 + 11))
    q = rope_append_kv(**case.arguments())
    testing.assert_within_budget(q, rotated(case, wide=True)[0], rotated(case, wide=False)[0])


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.thorough
def test_a_node_alone_and_among_others(rope_append_kv: RopeAppendKV, heads: Heads) -> None:
    case = make_case(heads, testing.chain_nodes((61, 7), 17, first_node=2), norms=True)
    one_by_one = replace(case, k_cache=case.k_cache.clone(), v_cache=case.v_cache.clone())
    together = rope_append_kv(**case.arguments())
    for i in range(17):
        positions = case.nodes.positions[:, i : i + 1].contiguous()
        nodes = NodeBatch(positions, case.nodes.cache_seqlens, 2 + i)
        single = replace(one_by_one, qkv=case.qkv[:, i : i + 1].contiguous(), nodes=nodes)
        testing.assert_same_bits(rope_append_kv(**single.arguments())[:, 0], together[:, i])
    testing.assert_same_bits(one_by_one.k_cache, case.k_cache)
    testing.assert_same_bits(one_by_one.v_cache, case.v_cache)


@pytest.mark.thorough
def test_thread_invariance(rope_append_kv: RopeAppendKV) -> None:
    case = make_case(HEADS[0], testing.chain_nodes((61, 7), 65), norms=True)

    def run() -> Tensor:
        k_cache, v_cache = case.k_cache.clone(), case.v_cache.clone()
        q = rope_append_kv(**replace(case, k_cache=k_cache, v_cache=v_cache).arguments())
        return torch.cat([q.flatten(), k_cache.flatten(), v_cache.flatten()])

    laws.check_thread_invariance(run)


BAD_INPUTS = {
    "qkv": torch.zeros(2, 3, 9 * 64 + 1),
    "k_cache": torch.zeros(2, 2, 128, 64),
    "v_cache": torch.zeros(2, 3, 64, 64),
    "rope": torch.zeros(2, NUM_POSITIONS, 31),
    "q_norm": torch.zeros(63),
    "k_norm": torch.zeros(65),
}
BAD_NODES = {
    "positions": NodeBatch(torch.zeros(2, 4, dtype=torch.int32), torch.tensor([5, 6]).int()),
    "cache_seqlens": NodeBatch(torch.zeros(2, 3, dtype=torch.int32), torch.tensor([5, 6])),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_inputs(fast_rope_append_kv: RopeAppendKV, name: str) -> None:
    case = make_case(HEADS[0], testing.chain_nodes((5, 6), 3), norms=True)
    says = "[kv]_cache" if name in ("k_cache", "v_cache") else name  # each is wrong for the other
    laws.check_refusal(fast_rope_append_kv, case.arguments(), name, BAD_INPUTS[name], says=says)


@pytest.mark.parametrize("name", BAD_NODES)
def test_bad_nodes(fast_rope_append_kv: RopeAppendKV, name: str) -> None:
    arguments = make_case(HEADS[0], testing.chain_nodes((5, 6), 3)).arguments()
    laws.check_refusal(fast_rope_append_kv, arguments, "nodes", BAD_NODES[name], says=name)


@pytest.mark.parametrize("place", [((5, 126), 3, 0), ((5, 120), 3, 6), ((-1, 5), 3, 0)], ids=str)
def test_slots_beyond_the_cache(fast_rope_append_kv: RopeAppendKV, place: Any) -> None:
    """Never a write outside the cache: memory stays whole whatever the lengths say."""
    laws.needs_values_on_the_host()
    arguments = make_case(HEADS[0], testing.chain_nodes((5, 6), 3)).arguments()
    nodes = replace(testing.chain_nodes(*place), positions=arguments["nodes"].positions)
    laws.check_refusal(fast_rope_append_kv, arguments, "nodes", nodes, says="cache_seqlens")


@pytest.mark.parametrize("position", [-1, NUM_POSITIONS])
def test_positions_beyond_the_table(fast_rope_append_kv: RopeAppendKV, position: int) -> None:
    laws.needs_values_on_the_host()
    arguments = make_case(HEADS[0], testing.chain_nodes((5, 6), 3)).arguments()
    positions = arguments["nodes"].positions.clone()
    positions[1, 2] = position
    nodes = replace(arguments["nodes"], positions=positions)
    laws.check_refusal(fast_rope_append_kv, arguments, "nodes", nodes, says="positions")
