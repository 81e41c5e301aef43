"""What a trained adapter drafts by rounds of the device, and calls of generate that are served by
them.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import pytest
import torch

from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.head import drafting_head
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.engine.batch import Batch
from kangaroo.engine.decode import Decoder, Round
from kangaroo.engine.decoders import Decoders
from kangaroo.engine.device_round import Pieces
from kangaroo.engine.graphs import GraphDecoder
from kangaroo.engine.state import DecodeState, PastKeyValues, Request
from kangaroo_kernels import testing
from tests.engine.played import PlayedRounds
from tests.engine.test_graphs import EXIT_LAYER, assert_same, counts, decode
from tests.engines import QUICK_KINDS

DRAFTERS = [KangarooDrafter, BranchingDrafter]


def drafting(drafters: type[KangarooDrafter], kind: AdapterKind) -> tuple[Any, KangarooDrafter]:
    """tiny-py, and who drafts with its adapter, always to the full depth."""
    llm = KangarooForCausalLM.from_pretrained("tiny-py", kind)
    draft = "tree" if drafters is BranchingDrafter else "chain"
    config = DraftConfig(EXIT_LAYER, draft=draft, confidence=0.0)
    return llm, drafters(llm.model, llm.adapter, config)


@pytest.mark.parametrize("first", [1, pytest.param(2, marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("drafters", DRAFTERS)
@pytest.mark.parametrize("kind", QUICK_KINDS)
def test_an_end_inside_an_accepted_path(
    kind: AdapterKind, drafters: type[KangarooDrafter], first: int
) -> None:
    """Keys, values, lengths and the next root are those of the last token that counts."""
    llm, drafter = drafting(drafters, kind)
    plain, graphs = Decoder(llm.model, drafter, drafter.config), GraphDecoder(drafter, PlayedRounds)
    prompt = llm.tokenizer("def add(a, b):\n    return").input_ids
    num_cut = 0
    for length in range(first, 25, 2):
        past, request = PastKeyValues(), Request(list(prompt), length)
        *_, (tokens, _, num_accepted) = decode(graphs, request, past)
        num_cut += num_accepted == len(tokens)
        assert past.state is not None
        for cache in (past.state.shallow_kv, past.state.adapter_kv):
            assert cache.slots.cache_seqlens.tolist() == cache.slots.committed
        expected = decode(plain, Request(list(request.tokens), 12))
        for decoder in (plain, graphs):
            ours = decode(decoder, Request(list(request.tokens), 12), copy.copy(past))
            assert_same(ours, expected, drafter.config)
        kept, fresh = copy.copy(past), PastKeyValues()  # of a prompt that ends earlier
        for decoder, own in ((plain, fresh), (graphs, kept)):
            decode(decoder, Request(request.tokens[:-1], 12), own)
        assert_same_rows(kept.state, fresh.state)
    assert num_cut > 2


def assert_same_rows(ours: DecodeState | None, theirs: DecodeState | None) -> None:
    """The adapter has the same keys and values of all slots that it has seen in both."""
    assert ours is not None
    assert theirs is not None
    caches = ours.adapter_kv, theirs.adapter_kv
    seen = min(cache.slots.committed[0] for cache in caches)
    testing.assert_same_bits(*(cache.storage[:, :1, :, :seen] for cache in caches))


@pytest.mark.parametrize("drafters", DRAFTERS)
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_a_round_that_could_not_be_kept(kind: AdapterKind, drafters: type[KangarooDrafter]) -> None:
    """A criterion raises: the rounds behind it draft and keep what they would have, and the
    adapter's rows are those of the loop.
    """
    llm, drafter = drafting(drafters, kind)
    prompt = llm.tokenizer("def add(a, b):\n    return").input_ids
    batches: list[Batch] = []
    done: tuple[list[Round], list[Round]] = ([], [])
    both = Decoder(llm.model, drafter, drafter.config), GraphDecoder(drafter, PlayedRounds)
    for decoder in both:
        batches.append(Batch(decoder, 1, 100))
        criteria = [Raising(len(prompt) + n) for n in range(3, 60, 7)]
        batches[-1].add(Request(list(prompt), 60, criteria=criteria))
    while len(batches[0]):
        for batch, rounds in zip(batches, done, strict=True):
            with suppress(InterruptedError):
                rounds += batch.step().values()
        if batches[0].running:
            assert_same_rows(*(batch._state for batch in batches))
    assert_same(counts(done[1]), counts(done[0]), drafter.config)


class Raising:
    """Once, at a length or behind it."""

    def __init__(self, length: int):
        self.length = length

    def __call__(self, ids: torch.Tensor, scores: None) -> bool:
        if ids.shape[1] >= self.length:
            self.length = 10**6
            raise InterruptedError
        return False


@pytest.mark.parametrize(
    "options", [{}, {"max_depth": 0}, {"draft": "tree"}, {"stop_strings": ["return"]}]
)
def test_generate(options: dict[str, Any]) -> None:
    """Calls one after the other, side by side, and several prompts in one."""
    plain = KangarooForCausalLM.from_pretrained("tiny-py", "paper")
    launched = KangarooForCausalLM.from_pretrained("tiny-py", "paper")
    launched._decoders = Decoders(launched.model, launched.adapter, launched.head, PlayedRounds)
    texts = ("def add(a, b):", "import os\n", "class A:\n    def __init__(self", "for i in range(")
    prompts = [plain.tokenizer(text).input_ids for text in texts]
    if options.get("stop_strings"):
        options = {**options, "tokenizer": plain.tokenizer}
    options = {**options, "max_new_tokens": 40}
    expected = [plain.generate(prompt, **options) for prompt in prompts]
    for prompt, ids in zip(prompts, expected, strict=True):
        assert torch.equal(launched.generate(prompt, **options), ids)
    rounds = [launched.rounds(prompt, **options) for prompt in prompts[:2]]
    while any([next(each, None) for each in rounds]):
        pass
    for each, prompt, ids in zip(rounds, prompts[:2], expected[:2], strict=True):
        assert prompt + each.tokens == ids[0].tolist()
    assert torch.equal(launched.generate(prompts, **options), plain.generate(prompts, **options))
    sampled = {**options, "do_sample": True, "seed": 3}
    assert torch.equal(
        launched.generate(prompts[0], **sampled), plain.generate(prompts[0], **sampled)
    )


KEPT = {"output_logits": True, "output_scores": True, "return_dict_in_generate": True}
KEPT |= {"max_new_tokens": 24, "adaptive": False, "eos_token_id": None}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_depth": 0},
        {"draft": "tree", "lookup": 2},
        {"do_sample": True, "temperature": 0.5, "seed": 3},
    ],
    ids=["chain", "off", "copies, tree", "sampled"],
)
@pytest.mark.parametrize("together", [False, True])
def test_what_tokens_were_chosen_from(
    options: dict[str, Any], together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds of the device keep it as the loop does; scores that a sampler shapes ask for the
    loop.
    """
    played = list[PlayedRounds]()

    def runtime(pieces: Pieces) -> PlayedRounds:
        played.append(PlayedRounds(pieces))
        return played[-1]

    llm = KangarooForCausalLM.from_pretrained("tiny-py", "deep_prefix")
    texts = ("def add(a, b):\n    return", "import os\n")
    prompts = [llm.tokenizer(text).input_ids for text in texts]
    given = prompts if together else prompts[0]
    expected = llm.generate(given, **KEPT, **options)
    monkeypatch.setattr(llm, "_decoders", Decoders(llm.model, llm.adapter, llm.head, runtime))
    output = llm.generate(given, **KEPT, **options)
    assert torch.equal(output.sequences, expected.sequences)
    for kept, wanted in ((output.logits, expected.logits), (output.scores, expected.scores)):
        testing.assert_same_bits(torch.stack(kept), torch.stack(wanted))
    launched = sum(each.num_launched for each in played)
    assert (launched > 0) != options.get("do_sample", False)


def test_decoders_are_used_again() -> None:
    """For the same way to draft, where the same is kept and no one judges by rejection."""
    llm = KangarooForCausalLM.from_pretrained("tiny-py", "paper")
    model, head = llm.model, drafting_head(llm.model.weights.lm_head)
    decoders = Decoders(model, llm.adapter, head, PlayedRounds)
    config = DraftConfig(EXIT_LAYER)
    first = decoders.of(config, sampled=False)
    assert isinstance(first, GraphDecoder)
    assert decoders.of(config, sampled=False) is decoders.of(config, sampled=True) is first
    assert not isinstance(decoders.of(config, sampled=True, coupled=False), GraphDecoder)
    keeping = decoders.of(config, sampled=False, keep_logits=True)
    assert isinstance(keeping, GraphDecoder)
    assert keeping is decoders.of(config, sampled=False, keep_logits=True)
    assert keeping is not decoders.of(config, sampled=False, keep_scores=True)
    assert not isinstance(decoders.of(config, sampled=True, keep_scores=True), GraphDecoder)
    assert decoders.of(config, sampled=False) is first, "what keeps is another"
    assert decoders.of(DraftConfig(EXIT_LAYER, max_depth=2), sampled=False) is not first
    tree = DraftConfig(EXIT_LAYER, draft="tree")
    assert isinstance(decoders.of(tree, sampled=False), GraphDecoder)
    assert decoders.of(tree, sampled=False) is decoders.of(tree, sampled=False)
    fixed = DraftConfig(EXIT_LAYER, draft="tree", tree_widths=(2, 2))
    assert isinstance(decoders.of(fixed, sampled=False), GraphDecoder)
    by_the_host = DraftConfig(EXIT_LAYER, draft="tree", max_nodes=64, max_depth=40)
    assert not isinstance(decoders.of(by_the_host, sampled=False), GraphDecoder)
    assert isinstance(decoders.of_batch(config, keep_logits=False), GraphDecoder)
    assert isinstance(decoders.of_batch(config, keep_logits=True), GraphDecoder)
    on_the_host = Decoders(model, None, head)
    assert not isinstance(on_the_host.of(DraftConfig(1, max_depth=0), sampled=False), GraphDecoder)
