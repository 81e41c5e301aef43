"""Libraries as a backend: what `auto` does with them, and the ways of attention that need a GPU."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kangaroo_kernels import KernelSet, Target, UnsupportedError, testing
from kangaroo_kernels.kernel_set import IMPLS, LIBRARY_OPS, Backend, auto_backend, load_impl
from kangaroo_kernels.testing import AttentionInputs, Heads
from kangaroo_kernels.tree_attention import library
from tests.kernels import naive

CPU = Target(torch.device("cpu"), torch.float32, head_dim=64)
GQA = Heads(6, 2, 40)


def check(actual: Tensor, inputs: AttentionInputs) -> None:
    tensors = inputs.q, inputs.k_cache, inputs.v_cache
    exact = naive.tree_attention(*testing.widen(*tensors), inputs.nodes, inputs.scale)
    low = naive.tree_attention(*tensors, inputs.nodes, inputs.scale)
    testing.assert_within_budget(actual, exact, low)


def attend(inputs: AttentionInputs) -> Tensor:
    return library.tree_attention(
        inputs.q, inputs.k_cache, inputs.v_cache, inputs.nodes, inputs.scale
    )


def stand_in(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    cache_seqlens: Tensor,
    softmax_scale: float,
    causal: bool,
) -> Tensor:
    """flash_attn_with_kvcache by its documentation: q [B, N, H_q, D] and caches [B, S, H_kv, D],
    whose first `cache_seqlens` slots are in use; causal: row i sees all of them but the last
    N - 1 - i.
    """
    assert causal
    group, rows = q.shape[2] // k_cache.shape[2], []
    for b, used in enumerate(cache_seqlens.tolist()):
        k, v = (c[b, :used].repeat_interleave(group, dim=1)[None] for c in (k_cache, v_cache))
        mask = torch.ones(q.shape[1], used, dtype=torch.bool).tril(used - q.shape[1])
        heads = (t.transpose(1, 2) for t in (q[b : b + 1], k, v))
        rows.append(F.scaled_dot_product_attention(*heads, mask, scale=softmax_scale))
    return torch.cat(rows).transpose(1, 2)


def test_nobody_is_given_a_library_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where nothing else can run."""
    assert {Backend.LIBRARY in IMPLS[op] for op in LIBRARY_OPS} == {True}
    monkeypatch.setattr(
        "kangaroo_kernels.kernel_set.IMPLS", dict.fromkeys(LIBRARY_OPS, (Backend.LIBRARY,))
    )
    for op in LIBRARY_OPS:
        for device in ("cpu", "cuda"):
            target = replace(CPU, device=torch.device(device))
            with pytest.raises(UnsupportedError, match="bits depend on its neighbours"):
                auto_backend(op, target)


def test_what_is_asked_of_libraries_is_theirs_alone() -> None:
    with pytest.raises(UnsupportedError, match="embedding has no library implementation"):
        KernelSet.resolve(CPU, "library")
    kernels = KernelSet.resolve(CPU, "auto", **dict.fromkeys(LIBRARY_OPS, "library"))
    served = {op for op, backend in kernels.backends.items() if backend == "library"}
    assert served == set(LIBRARY_OPS) == {"linear", "tree_attention", "gated_mlp"}
    assert kernels.decoder_layers([], torch.empty(0), 1e-5) is None, "layers go op by op"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("place", [((70,), 5, 7), ((200, 3), 16, 0), ((0, 61), 65, 0)], ids=str)
def test_chains_by_flash_attn(
    monkeypatch: pytest.MonkeyPatch, place: Any, dtype: torch.dtype
) -> None:
    """Lengths, layout and alignment of the mask, with a stand-in for the package."""
    monkeypatch.setattr(library, "FLASH", stand_in)
    monkeypatch.setattr(library, "_flash_takes", lambda q, nodes: nodes.ancestors is None)
    nodes = testing.chain_nodes(*place)
    inputs = testing.attention_inputs(GQA, nodes, dtype, unused=float("nan"))
    clean = (cache.nan_to_num() for cache in (inputs.k_cache, inputs.v_cache))
    check(attend(inputs), AttentionInputs(inputs.q, *clean, nodes, inputs.scale))


def test_flash_attn_is_for_chains_of_16_bits_on_a_gpu() -> None:
    chain = testing.chain_nodes((5,), 3)
    tree = testing.tree_nodes(testing.random_parents(1, 3), (5,))

    def takes(dtype: torch.dtype, head_dim: int, *, is_cuda: bool = True) -> tuple[bool, bool]:
        q: Any = SimpleNamespace(dtype=dtype, is_cuda=is_cuda, shape=(1, 3, 6, head_dim))
        return library._flash_takes(q, chain), library._flash_takes(q, tree)

    assert takes(torch.bfloat16, 40) == takes(torch.float16, 256) == (True, False)
    nothing = (False, False)
    assert takes(torch.bfloat16, 36) == takes(torch.bfloat16, 264) == nothing
    assert takes(torch.float32, 64) == takes(torch.bfloat16, 64, is_cuda=False) == nothing


@pytest.mark.parametrize("heads", [GQA, Heads(3, 3, 64)], ids=str)
@pytest.mark.parametrize("place", [((0,), 9, 0), ((70,), 5, 7), ((130, 130), 17, 20)], ids=str)
def test_chains_as_sdpa_is_asked_on_a_gpu(place: Any, heads: Heads) -> None:
    nodes = testing.chain_nodes(*place)
    inputs = testing.attention_inputs(heads, nodes, unused=float("nan"))
    used = place[0][0] + place[1] + place[2]
    k, v = inputs.k_cache[:, :, :used], inputs.v_cache[:, :, :used]
    out = library._causal_sdpa(inputs.q, k, v, inputs.scale)
    assert out.is_contiguous()
    clean = (cache.nan_to_num() for cache in (inputs.k_cache, inputs.v_cache))
    check(out, AttentionInputs(inputs.q, *clean, nodes, inputs.scale))


@pytest.mark.parametrize("kind", ["chain", "tree"])
@pytest.mark.parametrize("seqlens", [(61, 130), (70, 70)])
def test_lengths_that_the_host_knows_are_not_read(
    monkeypatch: pytest.MonkeyPatch, seqlens: tuple[int, int], kind: str
) -> None:
    """What is behind a shorter sequence is not read either."""
    nodes = testing.chain_nodes(seqlens, 5)
    if kind == "tree":
        nodes = testing.tree_nodes(testing.random_parents(2, 5), seqlens)
    inputs = testing.attention_inputs(GQA, nodes, unused=float("nan"))
    unknown = replace(inputs, nodes=replace(nodes, committed=None))
    expected = attend(unknown)
    clean = (cache.nan_to_num() for cache in (inputs.k_cache, inputs.v_cache))
    check(expected, AttentionInputs(inputs.q, *clean, nodes, inputs.scale))

    def read(_: Tensor) -> None:
        pytest.fail("the host waits")

    monkeypatch.setattr(Tensor, "tolist", read)
    testing.assert_same_bits(attend(inputs), expected)


@pytest.mark.parametrize("op", LIBRARY_OPS)
def test_they_run_on_any_target(op: str) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert load_impl(op, Backend.LIBRARY, replace(CPU, dtype=dtype)).__name__ == op
