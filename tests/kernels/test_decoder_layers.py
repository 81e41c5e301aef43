"""decoder_layers: whole layers in one call have the bits of the ops one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo.models.families import model_config
from kangaroo.models.llama import Llama
from kangaroo.models.weights import load_target
from kangaroo_kernels import KernelSet, Target, UnsupportedError, testing
from kangaroo_kernels.decoder_layers import DecoderLayers
from kangaroo_kernels.nodes import NodeBatch
from tests.factories import make_checkpoint
from tests.kernels import laws

CPU = torch.device("cpu")
ON_GPU = torch.cuda.is_available()
WAYS = [
    pytest.param("native", torch.float32, id="native-float32"),
    pytest.param("native", torch.bfloat16, id="native-bfloat16"),
    pytest.param("triton", torch.bfloat16, id="triton", marks=[pytest.mark.gpu] if ON_GPU else []),
]
FAMILIES = ("llama", "llama-gqa-llama3", "llama-bias", "qwen2", "qwen3-bias-tied")
IN_AN_INTERPRETER = ("llama-gqa-llama3", "qwen3-bias-tied")  # in every run; the others on request
NUM_SLOTS, WIDTH = 128, 64


def load(path: Path, backend: str, dtype: torch.dtype, **per_op: str) -> Llama:
    config = model_config(path)
    device = torch.device("cuda") if ON_GPU and backend == "triton" else CPU
    try:
        kernels = KernelSet.resolve(Target(device, dtype, config.head_dim), backend, **per_op)
    except UnsupportedError as refusal:
        pytest.skip(str(refusal))
    return Llama(config, load_target(path, config, dtype, device), kernels)


def fused(model: Llama) -> DecoderLayers:
    assert model.fused is not None, "all ops of a layer are of one backend"
    return model.fused


def make_kv(model: Llama, num_layers: int, batch: int = 1) -> Tensor:
    """Caches full of noise: what the nodes do not see is not read."""
    config = model.config
    shape = (2 * num_layers, batch, config.num_kv_heads, NUM_SLOTS, config.head_dim)
    return torch.randn(shape).to(model.weights.norm.dtype)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("target"), "llama-gqa-llama3")


def families() -> Iterator[Any]:
    for way in WAYS:
        backend, dtype = way.values
        for family in FAMILIES:
            slow = backend == "triton" and not ON_GPU and family not in IN_AN_INTERPRETER
            marks = [*way.marks, *([pytest.mark.fuzz] if slow else [])]
            yield pytest.param(family, backend, dtype, marks=marks, id=f"{family}-{way.id}")


@pytest.mark.parametrize(("family", "backend", "dtype"), list(families()))
def test_bits_of_the_ops_one_by_one(
    tmp_path: Path, family: str, backend: str, dtype: torch.dtype
) -> None:
    model = load(make_checkpoint(tmp_path, family), backend, dtype)
    trees = (
        testing.chain_nodes([63], 1),
        testing.chain_nodes([0, 70], 5, first_node=2),
        testing.tree_nodes(testing.random_parents(1, 9), [58]),
    )
    for nodes, (start, stop) in zip(trees, ((0, 4), (1, 3), (2, 3)), strict=True):
        batch, num_nodes = nodes.positions.shape
        h = torch.randn(batch, num_nodes, WIDTH).to(dtype)
        kv = make_kv(model, stop - start, batch)
        by_op = kv.clone()
        expected = model._op_by_op(h, start, stop, by_op, nodes, None, kernels=model.kernels)
        with testing.poisoned_empty():
            testing.assert_same_bits(fused(model)(h, start, stop, kv, nodes), expected)
        testing.assert_same_bits(kv, by_op)
        out = torch.empty_like(h)
        assert fused(model)(h, start, stop, kv, nodes, out) is out
        testing.assert_same_bits(out, expected)


def test_the_first_sequences_of_larger_caches(checkpoint: Path) -> None:
    """Planes of keys and values that stand further apart than they are large."""
    model = load(checkpoint, "native", torch.float32)
    nodes = testing.chain_nodes([3, 70], 5)
    h, whole = torch.randn(2, 5, WIDTH), make_kv(model, 4, batch=5)
    alone = whole[:, :2].clone()
    expected = fused(model)(h, 0, 4, alone, nodes)
    testing.assert_same_bits(fused(model)(h, 0, 4, whole[:, :2], nodes), expected)
    testing.assert_same_bits(whole[:, :2].contiguous(), alone)


@pytest.mark.parametrize(("backend", "dtype"), WAYS)
def test_rows_and_threads(checkpoint: Path, backend: str, dtype: torch.dtype) -> None:
    """A node alone, behind those in the cache already, has the bits that it has among them."""
    model, num_nodes = load(checkpoint, backend, dtype), 17
    h, kv = torch.randn(1, num_nodes, WIDTH).to(dtype), make_kv(model, 2)
    nodes = testing.chain_nodes([55], num_nodes)

    def together() -> Tensor:
        return fused(model)(h, 0, 2, kv.clone(), nodes)

    laws.check_thread_invariance(together)
    expected = together()
    for i in range(num_nodes):
        one = NodeBatch(nodes.positions[:, i : i + 1].contiguous(), nodes.cache_seqlens, i)
        alone = fused(model)(h[:, i : i + 1].contiguous(), 0, 2, kv, one)
        testing.assert_same_bits(alone[0, 0], expected[0, i])


@pytest.mark.parametrize(("backend", "dtype"), WAYS)
def test_an_op_of_another_backend_is_not_passed_over(
    checkpoint: Path, backend: str, dtype: torch.dtype
) -> None:
    assert load(checkpoint, backend, dtype, gated_mlp="reference").fused is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_norms_are_cut_in_two_in_bfloat16_alone(checkpoint: Path, dtype: torch.dtype) -> None:
    """Squares are exact there in float32, and rows that no norm has divided stay within range."""
    assert load(checkpoint, "triton", dtype).fused is None


@pytest.mark.parametrize(("backend", "dtype"), WAYS)
def test_weights_that_are_no_heads(checkpoint: Path, backend: str, dtype: torch.dtype) -> None:
    model = load(checkpoint, backend, dtype)
    layers = [
        replace(w, o=torch.zeros(WIDTH, w.o.shape[1] + 4, dtype=dtype, device=w.o.device))
        for w in model.weights.layers
    ]
    with pytest.raises(ValueError, match="^qkv, o: expected rows and columns of heads of"):
        model.kernels.decoder_layers(layers, model.rope, 1e-5)


@pytest.mark.parametrize(("backend", "dtype"), WAYS)
def test_bad_inputs(checkpoint: Path, backend: str, dtype: torch.dtype) -> None:
    model = load(checkpoint, backend, dtype)
    inputs = {
        "h": torch.randn(1, 2, WIDTH).to(dtype),
        "start": 0,
        "stop": 2,
        "kv": make_kv(model, 2),
        "nodes": testing.chain_nodes([5], 2),
    }
    for name, bad, says in (
        ("h", torch.zeros(1, 2, WIDTH + 1, dtype=dtype), "h"),
        ("h", torch.zeros(1, 2, WIDTH, dtype=torch.float64), "h"),
        ("stop", 3, "kv"),
        ("stop", 0, "kv"),
        ("kv", make_kv(model, 2)[..., :8], "kv"),
        ("kv", make_kv(model, 2, batch=2), "kv"),
        ("nodes", testing.chain_nodes([127], 2), "cache_seqlens"),
        ("nodes", replace(testing.chain_nodes([5], 2), first_node=-1), "first_node"),
    ):
        if says == "cache_seqlens" and inputs["h"].is_cuda:  # lengths are not looked at there
            continue
        laws.check_refusal(fused(model), inputs, name, bad, says=says)
