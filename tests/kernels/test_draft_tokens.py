"""draft_tokens: a chain in one call has the bits of its ops one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kangaroo.models.families import model_config
from kangaroo.models.llama import Llama
from kangaroo.models.weights import load_target
from kangaroo_kernels import KernelSet, Target, UnsupportedError, testing
from kangaroo_kernels.adapter_weights import DrafterWeights, StepWeights
from kangaroo_kernels.draft_head import DraftHead, quantize
from kangaroo_kernels.draft_tokens import DraftTokens
from kangaroo_kernels.nodes import NodeBatch
from tests.factories import make_checkpoint
from tests.kernels import laws

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.bfloat16)
NUM_SLOTS, WIDTH, EXIT_LAYER, COMMITTED = 128, 64, 2, 61


@dataclass
class Chain:
    """Arguments of a call: `unseen` slots in front of the root wait for the adapter."""

    tokens: Tensor
    exit_states: Tensor
    kv: tuple[Tensor, Tensor]
    nodes: tuple[NodeBatch, NodeBatch]

    @classmethod
    def random(cls, model: Llama, capacity: int, unseen: int) -> Chain:
        config, dtype = model.config, model.weights.norm.dtype
        heads = (1, config.num_kv_heads, NUM_SLOTS, config.head_dim)
        tokens = torch.full((1, capacity), -1)
        tokens[0, 0] = 17
        behind = testing.chain_nodes([COMMITTED - unseen], capacity + unseen)
        return cls(
            tokens,
            torch.randn(1, capacity + unseen, WIDTH).to(dtype),
            (torch.randn(2 * EXIT_LAYER, *heads).to(dtype), torch.randn(2, *heads).to(dtype)),
            (testing.chain_nodes([COMMITTED], capacity), behind),
        )

    def copy(self) -> Chain:
        shallow, own = self.kv
        kv = (shallow.clone(), own.clone())
        return Chain(self.tokens.clone(), self.exit_states.clone(), kv, self.nodes)

    def given(self) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], tuple[NodeBatch, NodeBatch]]:
        return self.tokens, self.exit_states, self.kv, self.nodes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("target"), "qwen3-bias-tied")


def load(path: Path, dtype: torch.dtype = torch.float32, **per_op: str) -> Llama:
    config = model_config(path)
    try:
        kernels = KernelSet.resolve(Target(CPU, dtype, config.head_dim), "native", **per_op)
    except UnsupportedError as refusal:
        pytest.skip(str(refusal))
    return Llama(config, load_target(path, config, dtype, CPU), kernels)


def drafter_of(model: Llama, head: DraftHead | None = None) -> DrafterWeights:
    config, dtype = model.config, model.weights.norm.dtype
    width = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    return DrafterWeights(
        EXIT_LAYER,
        model.weights.embed,
        StepWeights(
            testing.random_norm_weight(WIDTH, dtype),
            testing.random_weight(width, WIDTH, dtype),
            testing.random_weight(WIDTH, config.num_heads * config.head_dim, dtype),
        ),
        DraftHead(model.weights.lm_head) if head is None else head,
        testing.random_norm_weight(WIDTH, dtype),
        1e-5,
    )


def fused(model: Llama, weights: DrafterWeights) -> DraftTokens:
    found = model.kernels.draft_tokens(model.fused, weights)
    assert found is not None, "all ops of a draft are native"
    return found


def part(nodes: NodeBatch, start: int, stop: int) -> NodeBatch:
    positions = nodes.positions[:, start:stop].contiguous()
    return NodeBatch(positions, nodes.cache_seqlens, nodes.first_node + start)


def by_op(model: Llama, w: DrafterWeights, chain: Chain, threshold: float) -> int:
    """The definition."""
    unseen, seen = chain.exit_states.shape[1] - chain.tokens.shape[1], 0

    def enter(node: int) -> None:
        h = model.kernels.embedding(chain.tokens[:, node : node + 1].contiguous(), w.embed)
        place = chain.exit_states[:, unseen + node : unseen + node + 1]
        nodes = part(chain.nodes[0], node, node + 1)
        model._op_by_op(h, 0, w.num_layers, chain.kv[0], nodes, place, kernels=model.kernels)

    enter(0)
    for node in range(1, chain.tokens.shape[1]):
        h, nodes = (
            chain.exit_states[:, seen : unseen + node],
            part(chain.nodes[1], seen, unseen + node),
        )
        h = model.kernels.adapter_step(
            h, w.adapter, *chain.kv[1], nodes, model.rope, eps=w.adapter_eps
        )
        seen = unseen + node
        token, confidence = model.kernels.top1_confidence(h[:, -1:], w.head, w.norm, w.adapter_eps)
        chain.tokens[0, node] = token
        enter(node)
        if not float(confidence) >= threshold:
            return node + 1
    return chain.tokens.shape[1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("capacity", "unseen"), [(1, 0), (1, 2), (2, 0), (7, 1), (9, 3)])
def test_bits_of_the_ops_one_by_one(
    checkpoint: Path, dtype: torch.dtype, capacity: int, unseen: int
) -> None:
    model = load(checkpoint, dtype)
    some = DraftHead(model.weights.lm_head, token_ids=torch.arange(3, 200, 7, dtype=torch.int32))
    lengths = set()
    for head, threshold in ((None, 0.0), (some, 0.06), (None, 2.0)):
        weights = drafter_of(model, head)
        chain = Chain.random(model, capacity, unseen)
        expected = chain.copy()
        count = by_op(model, weights, expected, threshold)
        with testing.poisoned_empty():
            assert fused(model, weights)(*chain.given(), threshold) == count
        assert torch.equal(chain.tokens[:, :count], expected.tokens[:, :count])
        testing.assert_same_bits(chain.exit_states, expected.exit_states)
        for got, wanted in zip(chain.kv, expected.kv, strict=True):
            testing.assert_same_bits(got, wanted)
        lengths.add(count)
    assert {capacity, min(capacity, 2)} <= lengths


def test_threads(checkpoint: Path) -> None:
    model = load(checkpoint)
    draft, chain = fused(model, drafter_of(model)), Chain.random(model, 5, 1)

    def exit_states() -> Tensor:
        fresh = chain.copy()
        draft(*fresh.given(), 0.0)
        return fresh.exit_states

    laws.check_thread_invariance(exit_states)


@pytest.mark.parametrize("op", ["embedding", "top1_confidence", "adapter_step", "linear"])
def test_an_op_of_another_backend_is_not_passed_over(checkpoint: Path, op: str) -> None:
    model = load(checkpoint, **{op: "reference"})
    assert model.kernels.draft_tokens(model.fused, drafter_of(model)) is None


def test_bad_weights(checkpoint: Path) -> None:
    model = load(checkpoint)
    weights = drafter_of(model)
    with pytest.raises(ValueError, match="norm: expected"):
        fused(model, weights._replace(norm=weights.norm[:-1]))
    with pytest.raises(ValueError, match="^num_layers: expected 1 to"):
        fused(model, weights._replace(num_layers=model.config.num_layers + 1))
    with pytest.raises(ValueError, match="o: expected"):
        fused(model, weights._replace(adapter=weights.adapter._replace(o=weights.adapter.o.T)))
    with pytest.raises(UnsupportedError, match="head"):
        fused(model, weights._replace(head=quantize(model.weights.lm_head, torch.float8_e4m3fn)))


def test_bad_inputs(checkpoint: Path) -> None:
    model = load(checkpoint)
    chain = Chain.random(model, 3, 1)
    (shallow, own), (nodes, unseen) = chain.kv, chain.nodes
    draft = fused(model, drafter_of(model))
    inputs = {
        "tokens": chain.tokens,
        "exit_states": chain.exit_states,
        "kv": chain.kv,
        "nodes": chain.nodes,
        "threshold": 0.5,
    }
    for name, bad, says in (
        ("tokens", torch.full((1, 3), 263), "tokens"),
        ("tokens", chain.tokens.int(), "tokens"),
        ("tokens", chain.tokens[:, :0], "nodes"),
        ("exit_states", chain.exit_states[:, :2], "nodes"),
        ("exit_states", chain.exit_states.double(), "exit_states"),
        ("kv", (shallow[:2], own), "kv of the layers"),
        ("kv", (shallow, own[:, :, :1]), "kv of the adapter"),
        ("kv", (shallow, own[..., :32, :]), "kv of the adapter"),
        ("nodes", (testing.chain_nodes([126], 3), unseen), "cache_seqlens"),
        ("nodes", (nodes, testing.chain_nodes([126], 4)), "cache_seqlens"),
        ("nodes", (replace(nodes, ancestors=torch.ones(1, 3, dtype=torch.int64)), unseen), "chain"),
    ):
        laws.check_refusal(draft, inputs, name, bad, says=says)
