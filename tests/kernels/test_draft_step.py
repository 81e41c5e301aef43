"""draft_step: a step of drafting in two calls has the bits of the ops one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kangaroo.config import DraftConfig
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.steps import StepOpByOp, draft_step, weights_of
from kangaroo.models.llama import Llama
from kangaroo_kernels import Backend, Target, testing
from kangaroo_kernels.draft_head import DraftChain, DraftHead, quantize
from kangaroo_kernels.draft_step import DraftStep
from kangaroo_kernels.exit_states import ExitStates
from kangaroo_kernels.kernel_set import load_impl
from kangaroo_kernels.nodes import NodeBatch
from tests.engines import load, make_adapter
from tests.factories import make_checkpoint
from tests.kernels import laws
from tests.kernels.test_decoder_layers import CPU, ON_GPU, make_kv

pytestmark = [pytest.mark.gpu] if ON_GPU else []
DEVICE = torch.device("cuda") if ON_GPU else CPU
EXIT_LAYER, WIDTH = 2, 64
FAMILIES = ("llama-gqa-llama3", "qwen3-bias-tied")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    path = make_checkpoint(tmp_path_factory.mktemp("target"), request.param)
    return load(path, "triton", torch.bfloat16, DEVICE)


def drafter_of(model: Llama, head: DraftHead | None = None) -> KangarooDrafter:
    adapter = make_adapter(model, "deep_prefix", EXIT_LAYER)
    adapter.config = replace(adapter.config, rms_norm_eps=0.1)  # not the target's
    return KangarooDrafter(model, adapter, DraftConfig(EXIT_LAYER), head=head)


def both(drafter: KangarooDrafter) -> tuple[DraftStep, DraftStep]:
    """In two calls, and op by op."""
    fused = draft_step(drafter)
    assert not isinstance(fused, StepOpByOp), "all ops of a draft are Triton's"
    parts = drafter.model, drafter.adapter, drafter.head, EXIT_LAYER
    return fused, StepOpByOp(*parts)


def tokens_of(batch: int, num_nodes: int) -> Tensor:
    return torch.randint(200, (batch, num_nodes), device=DEVICE)


def heads_of(model: Llama) -> list[DraftHead | None]:
    head = model.weights.lm_head
    some = torch.arange(3, 200, 7, dtype=torch.int32, device=DEVICE)
    return [None, DraftHead(head, token_ids=some), quantize(head, torch.int8)]


@pytest.mark.parametrize(
    ("which", "tree"), [(0, False), (1, True), (2, False)], ids=["whole", "some-tree", "int8"]
)
def test_bits_of_the_ops_one_by_one(model: Llama, which: int, tree: bool) -> None:
    """Of exit states as they have come out of the layers, and of those that nobody has seen to."""
    fused, by_op = both(drafter_of(model, heads_of(model)[which]))
    if tree:
        nodes = testing.tree_nodes(testing.random_parents(1, 5), [58])
    else:
        nodes = testing.chain_nodes([0, 70], 2, first_node=3)
    batch, num_nodes = nodes.positions.shape
    tokens, kv = tokens_of(batch, num_nodes), make_kv(model, EXIT_LAYER, batch)
    room = torch.randn(2, batch, num_nodes + 2, WIDTH, device=DEVICE).bfloat16()
    entered, caches = list[ExitStates](), (kv, kv.clone())
    for step, rows, out in zip((fused, by_op), caches, room[:, :, 1 : 1 + num_nodes], strict=True):
        with testing.poisoned_empty():
            entered.append(step.enter(tokens, rows, nodes, out))
        testing.assert_same_bits(out, entered[0].h)
    testing.assert_same_bits(*caches)
    assert [states.ready is None for states in entered] == [False, True]
    own = make_kv(model, 1, batch)
    wanted = own.clone()
    ranking = by_op.topk(entered[1], wanted, nodes, 3)
    logits = by_op.logits(entered[1], wanted, nodes)
    for states in (entered[0], ExitStates(entered[0].h)):
        rows = own.clone()
        with testing.poisoned_empty():
            found = fused.topk(states, rows, nodes, 3)
        testing.assert_same_bits(rows, wanted)
        assert torch.equal(found[0], ranking[0])
        testing.assert_same_bits(found[1], ranking[1])
        testing.assert_same_bits(fused.logits(states, rows, nodes), logits)
    confidence = ranking[1][:, -1, 0].contiguous()
    for threshold in (confidence, confidence.nextafter(torch.ones_like(confidence))):
        chains = []
        for step, states, rows in ((fused, entered[0], own), (by_op, entered[1], wanted)):
            chain = DraftChain.of_roots(batch, 4, 0.0, DEVICE)._replace(threshold=threshold)
            step.top1(states, rows, nodes, chain)
            chains.append(chain)
        for found, expected in zip(*chains, strict=True):
            assert torch.equal(found, expected)
        assert torch.equal(chains[0].tokens[:, 1], ranking[0][:, -1, 0])
        assert torch.equal(chains[0].stopped > 0, threshold > confidence)


def test_rows(model: Llama) -> None:
    """A node alone has the bits that it has among others."""
    fused, num_nodes = both(drafter_of(model))[0], 17
    nodes, tokens = testing.chain_nodes([55], num_nodes), tokens_of(1, num_nodes)
    kv, own = make_kv(model, EXIT_LAYER), make_kv(model, 1)
    out = torch.empty(1, num_nodes, WIDTH, dtype=torch.bfloat16, device=DEVICE)
    logits = fused.logits(fused.enter(tokens, kv, nodes, out), own, nodes)
    for i in (0, 7, 15, 16):
        one = NodeBatch(nodes.positions[:, i : i + 1].contiguous(), nodes.cache_seqlens, i)
        alone = torch.empty_like(out[:, :1])
        states = fused.enter(tokens[:, i : i + 1].contiguous(), kv, one, alone)
        testing.assert_same_bits(alone[0, 0], out[0, i])
        testing.assert_same_bits(fused.logits(states, own, one)[0, 0], logits[0, i])


@pytest.mark.parametrize("op", ["embedding", "topk_confidence", "adapter_step", "linear"])
def test_an_op_of_another_backend_is_not_passed_over(model: Llama, op: str) -> None:
    target = Target(DEVICE, torch.bfloat16, model.config.head_dim)
    kernels = replace(model.kernels, **{op: load_impl(op, Backend.REFERENCE, target)})
    drafter = drafter_of(model)
    assert drafter.adapter is not None
    assert kernels.draft_step(model.fused, weights_of(drafter, drafter.adapter)) is None


def test_bad_weights(model: Llama) -> None:
    drafter = drafter_of(model)
    assert drafter.adapter is not None
    weights = weights_of(drafter, drafter.adapter)
    for bad, says in (
        (weights._replace(norm=weights.norm[:-1]), "norm_weight"),
        (weights._replace(adapter=weights.adapter._replace(o=weights.adapter.o[:-1])), "o"),
        (weights._replace(adapter=weights.adapter._replace(qkv=weights.adapter.qkv[1:])), "qkv"),
        (weights._replace(embed=weights.embed.float()), "embed"),
        (weights._replace(num_layers=model.config.num_layers + 1), "num_layers"),
        (weights._replace(head=DraftHead(model.weights.lm_head[:, 1:])), "head.weight"),
    ):
        with pytest.raises(ValueError, match=f"^{says}: expected"):
            model.kernels.draft_step(model.fused, bad)


def test_bad_inputs(model: Llama) -> None:
    fused, nodes = both(drafter_of(model))[0], testing.chain_nodes([5], 2)
    kv, own = make_kv(model, EXIT_LAYER), make_kv(model, 1)
    out = torch.empty(1, 2, WIDTH, dtype=torch.bfloat16, device=DEVICE)
    inputs = {"tokens": tokens_of(1, 2), "kv": kv, "nodes": nodes, "out": out}
    for name, bad, says in (
        ("tokens", tokens_of(1, 2).int(), "tokens"),
        ("tokens", tokens_of(1, 3), "out"),
        ("kv", own, "kv"),
        ("out", out.float(), "out"),
        ("out", out[..., 1:], "out"),
    ):
        laws.check_refusal(fused.enter, inputs, name, bad, says=says)
    inputs = {"states": ExitStates(out), "kv": own, "nodes": nodes, "k": 3}
    for name, bad, says in (
        ("states", ExitStates(out[..., 1:].contiguous()), "h"),
        ("states", ExitStates(out.float()), "h"),
        ("kv", kv, "kv"),
        ("nodes", testing.chain_nodes([5], 3), "nodes"),
        ("k", 17, "k"),
    ):
        laws.check_refusal(fused.topk, inputs, name, bad, says=says)
