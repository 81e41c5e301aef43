"""The whole engine on Triton: the reference's tokens, L1, and nothing between the kernels."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.head import drafting_head
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.steps import StepOpByOp
from kangaroo.engine.decode import Decoder
from kangaroo.engine.drafting import kangaroo_drafter
from kangaroo.engine.graphs import GraphDecoder
from kangaroo.models.llama import Llama
from kangaroo_kernels import testing
from tests.engine.played import PlayedRounds
from tests.engine.test_graphs import assert_same, decode
from tests.engines import (
    QUICK_KINDS,
    NoisyDrafter,
    Run,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
    request_of,
    sampler_of,
)
from tests.factories import make_checkpoint

SMALLEST = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}
PROMPT_LEN, NUM_TOKENS, DEPTH = 58, 12, 3  # over the end of a chunk

pytestmark = [
    pytest.mark.skipif(
        torch.cuda.is_available(), reason="interprets, and Triton compiles where there is a GPU"
    ),
    pytest.mark.usefixtures("faithful_interpreter"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    path = make_checkpoint(tmp_path_factory.mktemp("target"), "qwen3", **SMALLEST)
    return load(path, "triton")


@pytest.fixture(scope="module")
def plain(model: Llama, faithful_interpreter: None) -> Run:
    return autoregressive(model, make_prompt(model, PROMPT_LEN), NUM_TOKENS)


def test_tokens_of_the_reference(plain: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    reference = load(make_checkpoint(tmp_path_factory.mktemp("target"), "qwen3", **SMALLEST))
    prompt = make_prompt(reference, PROMPT_LEN)
    assert plain.tokens == autoregressive(reference, prompt, NUM_TOKENS).tokens


def test_bits_in_bfloat16_wherever_layers_are_cut(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whole layers in one call: where one begins, a norm has a launch of its own."""
    path = make_checkpoint(
        tmp_path_factory.mktemp("target"), "qwen3", **SMALLEST | {"num_hidden_layers": 3}
    )
    model = load(path, "triton", torch.bfloat16)
    assert model.fused is not None
    prompt, plain = make_prompt(model, PROMPT_LEN), list[Run]()
    for exit_layer in (1, 2):
        drafter = KangarooDrafter(model, None, DraftConfig(exit_layer, max_depth=0))
        plain.append(decoder_of(drafter).run(prompt, NUM_TOKENS // 2))
    config = DraftConfig(exit_layer=1, max_depth=DEPTH)
    adapter = make_adapter(model, "deep_prefix", 1)
    drafting = NoisyDrafter(model, adapter, config, prompt + plain[0].tokens)
    run = decoder_of(drafting).run(prompt, NUM_TOKENS // 2)
    assert run.num_accepted > 0
    for other in (plain[1], run):
        testing.assert_same_bits(other.logits, plain[0].logits)


@pytest.mark.parametrize("kind", QUICK_KINDS)
def test_bits_of_plain_decoding(model: Llama, plain: Run, kind: AdapterKind) -> None:
    prompt = make_prompt(model, PROMPT_LEN)
    config = DraftConfig(exit_layer=1, max_depth=DEPTH)
    drafter = NoisyDrafter(model, make_adapter(model, kind, 1), config, prompt + plain.tokens)
    run = decoder_of(drafter).run(prompt, NUM_TOKENS)
    assert run.tokens == plain.tokens
    assert 0 < run.num_accepted < run.num_drafted
    testing.assert_same_bits(run.logits, plain.logits)


# What a round may ask of torch: memory, views, tokens from and to the host, the logits of those
# that are written, the lengths of the commit; and, with tensors on a CPU, the checks of their
# values.
HARMLESS = {"new_empty", "empty_like", "select", "slice", "flatten", "item", "fill_", "aminmax"}
HARMLESS |= {"add", "unsqueeze"}  # of the positions behind the lengths
HARMLESS |= {"copy_"}  # once, behind the last kernel: the exit state in front of the next root
HARMLESS |= {
    "lift_fresh",
    "detach",
    "detach_",
    "resolve_conj",
    "resolve_neg",
}  # of torch.tensor and tolist


class Recorder(TorchDispatchMode):
    """Names of torch's ops, those inside an interpreted kernel left out."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_no_torch_op_stands_between_the_kernels_of_a_round(model: Llama, kind: AdapterKind) -> None:
    from triton.runtime.interpreter import InterpretedFunction

    interpret = InterpretedFunction.run

    def unrecorded(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return interpret(*args, **kwargs)

    config = DraftConfig(exit_layer=1, max_depth=DEPTH, confidence=0.0)
    drafter = KangarooDrafter(model, make_adapter(model, kind, 1), config)
    rounds = Decoder(model, drafter, config).generate(request_of(make_prompt(model, 4), NUM_TOKENS))
    next(rounds)
    with patch.object(InterpretedFunction, "run", unrecorded), Recorder() as recorder:
        assert next(rounds).num_drafted == DEPTH
    assert {"new_empty", "item"} <= set(recorder.names) <= HARMLESS
    assert recorder.names["copy_"] == 1


@pytest.mark.parametrize(("draft", "kind"), [("chain", "paper"), ("tree", "deep_prefix")])
def test_steps_of_the_device_in_bfloat16(
    tmp_path_factory: pytest.TempPathFactory, draft: Any, kind: AdapterKind
) -> None:
    """What a call makes ready for the next one, rounds carry from step to step."""
    path = make_checkpoint(tmp_path_factory.mktemp("target"), "qwen3", **SMALLEST)
    model = load(path, "triton", torch.bfloat16)
    config = DraftConfig(exit_layer=1, max_depth=DEPTH, confidence=0.0, draft=draft, max_nodes=6)
    adapter, head = make_adapter(model, kind, 1), drafting_head(model.weights.lm_head)
    drafter = kangaroo_drafter(model, adapter, config, head, sampled=False, coupled=False)
    done, prompt = [], make_prompt(model, 4)
    with patch.object(StepOpByOp, "top1") as top1, patch.object(StepOpByOp, "topk") as topk:
        for decoder in (decoder_of(drafter), GraphDecoder(drafter, PlayedRounds)):
            done.append(decode(decoder, request_of(prompt, NUM_TOKENS // 2)))
    assert not top1.called
    assert not topk.called
    assert_same(done[1], done[0], config)
    assert sum(num_accepted for *_, num_accepted in done[0]) > 0


@pytest.mark.fuzz
@pytest.mark.parametrize("draft", ["chain", "tree"])
def test_sampled_rounds_of_the_device(
    model: Llama, tmp_path_factory: pytest.TempPathFactory, draft: Any
) -> None:
    """They draft, draw and keep what the reference's loop does."""
    path = make_checkpoint(tmp_path_factory.mktemp("target"), "qwen3", **SMALLEST)
    config = DraftConfig(exit_layer=1, max_depth=DEPTH, confidence=0.0, draft=draft, max_nodes=6)
    done = []
    for target, device in ((load(path), False), (model, True)):
        adapter, head = make_adapter(target, "paper", 1), drafting_head(target.weights.lm_head)
        drafter = kangaroo_drafter(target, adapter, config, head, sampled=True, coupled=True)
        decoder = GraphDecoder(drafter, PlayedRounds) if device else decoder_of(drafter)
        sampler = sampler_of(temperature=0.4, top_k=20, top_p=0.9)
        request = request_of(make_prompt(target, PROMPT_LEN), 2 * NUM_TOKENS, sampler=sampler)
        done.append(decode(decoder, request))
    assert_same(done[1], done[0], config)
    assert sum(num_accepted for *_, num_accepted in done[0]) > 0
