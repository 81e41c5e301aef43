"""Rounds of the device that are sampled say, draft and keep what the loop does step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.head import drafting_head
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.engine.batch import Batch
from kangaroo.engine.decode import Decoder
from kangaroo.engine.decoders import Decoders
from kangaroo.engine.drafting import kangaroo_drafter
from kangaroo.engine.graphs import GraphDecoder
from kangaroo.engine.state import Request
from kangaroo.models.llama import Llama
from tests.engine.played import PlayedRounds
from tests.engine.test_graphs import (
    CHAIN,
    DRAFTS,
    EXIT_LAYER,
    TREES,
    Counts,
    assert_same,
    counts,
    decode,
)
from tests.engine.test_graphs import model as model  # a fixture
from tests.engines import make_adapter, make_prompt, sampler_of

LAWS: list[dict[str, Any]] = [
    {"temperature": 0.3},
    {"temperature": 0.4, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
]


def decoders(
    model: Llama, kind: AdapterKind | None, *, ids: torch.Tensor | None = None, **options: Any
) -> tuple[Decoder, GraphDecoder]:
    """Step by step, and by rounds of the device."""
    config = DraftConfig(EXIT_LAYER, **(options if kind else {"max_depth": 0}))
    adapter = make_adapter(model, kind, EXIT_LAYER) if kind else None
    head = drafting_head(model.weights.lm_head, token_ids=ids)
    drafter = kangaroo_drafter(model, adapter, config, head, sampled=True, coupled=True)
    return Decoder(model, drafter, config), GraphDecoder(drafter, PlayedRounds)


def request_of(model: Llama, prompt_len: int, num_new: int, **law: Any) -> Request:
    sampler = sampler_of(**law) if law else None
    return Request(make_prompt(model, prompt_len, prompt_len), num_new, sampler=sampler)


def launched(graphs: GraphDecoder) -> int:
    """Rounds that the device ran."""
    return sum(rounds.runtime.num_launched for rounds in graphs._captured.values())  # type: ignore[attr-defined]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("draft", [CHAIN, *TREES])
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_every_round_is_that_of_the_loop(
    model: Llama, kind: AdapterKind, draft: dict[str, Any], law: dict[str, Any]
) -> None:
    """And its tokens are those of plain decoding."""
    plain, graphs = decoders(model, kind, confidence=0.2, **draft)
    expected = decode(plain, request_of(model, 12, 60, **law))
    for _ in range(2):  # and again with the caches and the graphs that are there
        assert_same(decode(graphs, request_of(model, 12, 60, **law)), expected, plain.config)
    assert launched(graphs) > 40
    accepted = sum(num_accepted for *_, num_accepted in expected)
    assert 0 < accepted < sum(num_drafted for _, num_drafted, _ in expected)
    alone = [decode(each, request_of(model, 12, 60, **law)) for each in decoders(model, None)]
    assert said(alone[0]) == said(alone[1]) == said(expected)


def said(rounds: Counts) -> list[int]:
    return [token for tokens, *_ in rounds for token in tokens]


def test_seeds_and_sequences_differ_in_one_graph(model: Llama) -> None:
    """What is captured reads the draws of each call."""
    plain, graphs = decoders(model, "paper", confidence=0.2)
    calls: list[dict[str, Any]] = [{"seed": 1}, {"seed": 2**64 - 1}, {"seed": 1, "sequence": 3}]
    calls += [{"seed": 1, "temperature": 3.0}]
    texts = []
    for call in calls:
        law = LAWS[0] | call
        texts.append(said(decode(graphs, request_of(model, 12, 40, **law))))
        assert texts[-1] == said(decode(plain, request_of(model, 12, 40, **law)))
    assert said(decode(plain, request_of(model, 12, 40, **LAWS[0], **calls[0]))) == texts[0]
    assert len({tuple(text) for text in texts}) == len(calls)
    assert len(graphs._captured) == 1


@pytest.mark.parametrize("draft", DRAFTS)
def test_an_adapter_whose_states_are_not_finite(model: Llama, draft: dict[str, Any]) -> None:
    """It costs drafts that are wrong."""
    plain, graphs = decoders(model, "deep_prefix", confidence=0.0, **draft)
    assert isinstance(plain.drafter, KangarooDrafter)
    assert plain.drafter.adapter is not None
    plain.drafter.adapter.norm.fill_(torch.nan)
    for law in ({}, LAWS[0]):
        expected = said(decode(plain, request_of(model, 12, 20, **law)))
        assert said(decode(graphs, request_of(model, 12, 20, **law))) == expected


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_draft_vocabulary(model: Llama, draft: dict[str, Any]) -> None:
    """A token's numbers are its own, whichever row of the draft head it is."""
    ids = torch.arange(1, model.config.vocab_size, 2, dtype=torch.int32)
    plain, graphs = decoders(model, "deep_prefix", ids=ids, confidence=0.2, **draft)
    expected = decode(plain, request_of(model, 12, 60, **LAWS[0]))
    assert_same(decode(graphs, request_of(model, 12, 60, **LAWS[0])), expected, plain.config)
    assert sum(num_accepted for *_, num_accepted in expected) > 0


@pytest.mark.parametrize("draft", DRAFTS)
def test_batches(model: Llama, draft: dict[str, Any]) -> None:
    """Greedy, sampled, and shaped by processors, beside which the host runs the rounds: every
    sequence as alone.
    """
    ways: list[dict[str, Any]] = [{}, LAWS[0], LAWS[1], LAWS[0] | {"repetition_penalty": 1.3}]
    for num_ways in (3, 4):
        plain, graphs = decoders(model, "deep_prefix", confidence=0.2, **draft)
        batch, done = Batch(graphs, 4, 100), dict[int, list[Any]]()
        for n, way in enumerate(ways[:num_ways]):
            number = batch.add(request_of(model, 5 + n, 20 + 5 * (n == 3), **way))
            done[number] = []
        while len(batch):
            for number, latest in batch.step().items():
                done[number].append(latest)
        for n, way in enumerate(ways[:num_ways]):
            alone = decode(plain, request_of(model, 5 + n, 20 + 5 * (n == 3), **way))
            assert said(counts(done[n])) == said(alone)


@pytest.mark.parametrize("draft", ["chain", "tree"])
def test_calls_of_generate(draft: Any) -> None:
    """Served by rounds of the device where these can do what is asked for, with the same ids."""
    plain = KangarooForCausalLM.from_pretrained("tiny-py", "deep_prefix")
    served = KangarooForCausalLM.from_pretrained("tiny-py", "deep_prefix")
    decoders = Decoders(served.model, served.adapter, served.head, PlayedRounds)
    served._decoders = decoders
    calls: list[dict[str, Any]] = [
        {"temperature": 0.8},
        {"top_p": 0.9, "num_return_sequences": 3},
        {"repetition_penalty": 1.2},
        {"draft_sampling": "rejection", "adaptive": False},
        {"output_scores": True, "return_dict_in_generate": True},
    ]
    prompt = plain.tokenizer("def add(a, b):\n    return").input_ids
    for call in calls:
        options = {"do_sample": True, "max_new_tokens": 24, "draft": draft, "seed": 3} | call
        ours, theirs = (llm.generate(prompt, **options) for llm in (served, plain))
        if isinstance(theirs, torch.Tensor):
            assert torch.equal(ours, theirs)
        else:
            assert torch.equal(ours.sequences, theirs.sequences)
            assert all(map(torch.equal, ours.scores, theirs.scores))
    (graphs,) = decoders._graphs.values()
    assert {shape.drawn for shape in graphs._captured} == {True}
