"""Rounds of copies that the device runs alone, between others of its own drafts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch

from kangaroo.cache import Texts
from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.copying import CopyingDrafter
from kangaroo.draft.device_chains import DeviceChainDrafter
from kangaroo.draft.device_copies import DeviceCopies
from kangaroo.draft.fixed_trees import FixedTrees
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.engine.batch import decode_together
from kangaroo.engine.chain_rounds import ChainRounds
from kangaroo.engine.decode import Decoder
from kangaroo.engine.device_round import DeviceRounds
from kangaroo.engine.graphs import GraphDecoder
from kangaroo.engine.state import PastKeyValues, Request
from kangaroo.engine.tree_rounds import FixedTreeRounds, GrownTreeRounds, TreeRounds
from kangaroo.models.llama import Llama
from kangaroo_kernels.copy_draft import reference
from tests.engine.played import PlayedRounds
from tests.engine.test_graphs import EXIT_LAYER, PoisonedGraphs, assert_same, counts, decode, model
from tests.engines import autoregressive, make_adapter, make_prompt, sampler_of
from tests.lossless.test_copying import spoilt
from tests.sampling.test_mutants import mutated

__all__ = ["model"]
KINDS: tuple[AdapterKind | None, ...] = (None, *ADAPTER_KINDS)
NUM_NEW, PROMPT_LENS = 60, (1, 2, 64)


def decoders(
    target: Llama, kind: AdapterKind | None, **options: Any
) -> tuple[Decoder, PoisonedGraphs]:
    """Step by step, and by rounds of the device."""
    rule = options if kind else options | {"max_depth": 0, "draft": "chain", "tree_widths": ()}
    config = DraftConfig(EXIT_LAYER, lookup=1, **rule)
    adapter = make_adapter(target, kind, EXIT_LAYER) if kind else None
    drafters = BranchingDrafter if config.draft == "tree" else KangarooDrafter
    drafter = CopyingDrafter(drafters(target, adapter, config))
    return Decoder(target, drafter, config), PoisonedGraphs(drafter, PlayedRounds)


def prompt_of(target: Llama, length: int) -> list[int]:
    return make_prompt(target, length, length)


def know(texts: Sequence[list[int]], vocab_size: int, patch: pytest.MonkeyPatch) -> None:
    """Copies go on as one of `texts` does, more or less, for the host and for the device."""

    def copy(tokens: Sequence[int], size: int, count: int) -> list[int]:
        ahead = (text[len(tokens) :] for text in texts if text[: len(tokens)] == tokens)
        found = spoilt(next(ahead, []), len(tokens), count, vocab_size)
        return found and (found + [0] * count)[:count]

    def told(_: CopyingDrafter, request: Request, count: int) -> list[int]:
        return copy(request.tokens, 1, count)

    patch.setattr(CopyingDrafter, "copy", told)
    patch.setattr(reference, "continuation", copy)


@pytest.fixture(scope="module")
def copier(model: Llama) -> Llama:
    """Finds copies as the definition does."""
    kernels = dataclasses.replace(model.kernels, copy_draft=reference.copy_draft)
    return Llama(model.config, model.weights, kernels)


@pytest.fixture
def knowing(copier: Llama, monkeypatch: pytest.MonkeyPatch) -> Llama:
    """A target whose continuations copies come near."""
    prompts = [prompt_of(copier, length) for length in PROMPT_LENS]
    texts = [prompt + autoregressive(copier, prompt, NUM_NEW).tokens for prompt in prompts]
    know(texts, copier.config.vocab_size, monkeypatch)
    return copier


@pytest.mark.parametrize(
    "options",
    [
        {"confidence": 0.0},
        {"confidence": 0.12, "lookup_depth": 4},
        {"adaptive": True, "costs": (0.3, 0.05)},
        {"draft": "tree", "confidence": 0.0},
        {"draft": "tree", "confidence": 0.12, "lookup_depth": 20, "max_nodes": 8},
        {"draft": "tree", "tree_widths": (2, 1, 1)},
        {"draft": "tree", "adaptive": True, "costs": (0.3, 0.05)},
    ],
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt_len", PROMPT_LENS)
def test_every_round_is_that_of_the_loop(
    knowing: Llama, kind: AdapterKind | None, options: dict[str, Any], prompt_len: int
) -> None:
    """Whatever was drafted in the round before, and with what was captured before. But adaptive
    drafting pays for rows that the host does not verify.
    """
    plain, graphs = decoders(knowing, kind, **options)
    alike = "adaptive" not in options
    expected = decode(plain, Request(prompt_of(knowing, prompt_len), NUM_NEW))
    for _ in range(2):
        ours = decode(graphs, Request(prompt_of(knowing, prompt_len), NUM_NEW))
        if alike:
            assert_same(ours, expected, plain.config)
        assert [t for tokens, *_ in ours for t in tokens] == [
            t for tokens, *_ in expected for t in tokens
        ]
    made = {type(rounds) for rounds in graphs._captured.values()}
    trees = FixedTreeRounds if "tree_widths" in options else GrownTreeRounds
    assert made == {trees if kind and options.get("draft") else ChainRounds}
    assert len(graphs._captured) == 1 or "adaptive" in options
    assert max(accepted for *_, accepted in ours) > 3


@pytest.mark.parametrize("draft", ["chain", "tree"])
@pytest.mark.parametrize("kind", KINDS)
def test_batches(
    knowing: Llama, kind: AdapterKind | None, draft: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some copy while others are drafted for; the tokens are those of each alone."""
    copying, find = list[float](), DeviceCopies.find

    def spy(copies: DeviceCopies, *parts: Any) -> None:
        find(copies, *parts)
        copying.append(copies.found.float().mean().item())

    monkeypatch.setattr(DeviceCopies, "find", spy)
    _, graphs = decoders(knowing, kind, confidence=0.0, draft=draft)
    requests = [Request(prompt_of(knowing, length), NUM_NEW) for length in PROMPT_LENS]
    expected = [autoregressive(knowing, request.tokens, NUM_NEW).tokens for request in requests]
    results = decode_together(graphs, requests)
    assert [rounds.tokens for rounds in results] == expected
    assert max(len(rounds.done) for rounds in results) < NUM_NEW
    assert any(0 < share < 1 for share in copying)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draft", ["chain", "tree"])
def test_a_conversation(knowing: Llama, draft: str, kind: AdapterKind | None) -> None:
    """A round is cut by a criterion wherever it may be; the next call begins with copies, for which
    `paper` asks the exit state in front.
    """
    plain, graphs = decoders(knowing, kind, confidence=0.0, draft=draft)
    for stop in range(64 + 5, 64 + 25):
        pasts, requests = [], []
        for decoder in (plain, graphs):
            request = Request(prompt_of(knowing, 64), NUM_NEW)
            request.criteria = [lambda ids, _, n=stop: ids.shape[1] >= n]
            pasts.append(PastKeyValues())
            decode(decoder, request, pasts[-1])
            requests.append(Request(list(request.tokens), NUM_NEW + 64 - stop))
        fronts = [past.state.exit_states[0, 0] for past in pasts if past.state]
        assert torch.equal(*fronts)
        ours, theirs = (decode(graphs, *each) for each in zip(requests, pasts, strict=True))
        assert_same(ours, theirs, plain.config)


def test_drawn_tokens(knowing: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies do not know them; they are those of the seed."""
    plain, graphs = decoders(knowing, "paper", confidence=0.0)

    def sampled(decoder: Decoder) -> list[int]:
        request = Request(prompt_of(knowing, 64), 1, sampler=sampler_of(temperature=0.7))
        request.num_left = NUM_NEW
        rounds = counts(list(decoder.generate(request)))
        return [token for tokens, *_ in rounds for token in tokens]

    texts = [prompt_of(knowing, 64) + sampled(plain_of(knowing))]
    know(texts, knowing.config.vocab_size, monkeypatch)
    assert sampled(graphs) == sampled(plain) == texts[0][64:]


def plain_of(target: Llama) -> Decoder:
    config = DraftConfig(1, max_depth=0)
    return Decoder(target, KangarooDrafter(target, None, config), config)


FIXED: dict[str, Any] = {"draft": "tree", "tree_widths": (2, 1, 1)}
MUTANTS: list[tuple[dict[str, Any], Callable[..., Any], str, str]] = [
    ({}, DeviceChainDrafter.copied, "through_shallow_layers(", "print("),
    ({}, DeviceRounds.begin, "path_len.fill_(1)", "path_len.fill_(2)"),
    ({}, Texts.follow, "start : start + len(new)", "1 + start : 1 + start + len(new)"),
    ({}, GraphDecoder._limits, "copied = min(", "copied = min(1, "),
    (FIXED, TreeRounds.through_layers, "self.drafter.through_layers(", "print("),
    (FIXED, FixedTrees.put, "nodes.stopped[:, None] == 0, new", "nodes.stopped[:, None] > 9, new"),
    (FIXED, FixedTrees.plant, "self.put(self.trees.ancestors, ancestors)", "pass"),
    ({"draft": "tree"}, GrownTreeRounds.tail, "self.through_layers()", "self.placed()"),
]


@pytest.mark.parametrize(("options", "function", "old", "new"), MUTANTS)
def test_mutants_are_killed(
    knowing: Llama,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    function: Callable[..., Any],
    old: str,
    new: str,
) -> None:
    monkeypatch.setattr(function, "__code__", mutated(function, old, new))
    plain, graphs = decoders(knowing, "paper", confidence=0.0, **options)
    prompt = prompt_of(knowing, 64)
    expected = decode(plain, Request(list(prompt), NUM_NEW))
    ours = None
    with suppress(ValueError):  # what has not been written is NaN, and logits are not finite
        ours = decode(graphs, Request(list(prompt), NUM_NEW))
    assert ours != expected


def test_texts_that_repeat_themselves(model: Llama) -> None:
    """By the op itself: what it finds is what the host finds."""
    plain, graphs = decoders(model, "deep_prefix", confidence=0.0)
    prompt = prompt_of(model, 40) + prompt_of(model, 40)[:30]
    expected = decode(plain, Request(list(prompt), NUM_NEW))
    ours = decode(graphs, Request(list(prompt), NUM_NEW))
    assert_same(ours, expected, plain.config)
    assert max(drafted for _, drafted, _ in ours) == plain.config.lookup_depth
