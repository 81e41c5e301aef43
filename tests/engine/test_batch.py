"""Sequences that are decoded together: each is what it is alone, whatever happens to the others."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.engine.batch import Batch, decode_together
from kangaroo.engine.decode import Decoder, Round
from kangaroo.engine.state import Request
from kangaroo.models.llama import Llama
from kangaroo_kernels import testing
from tests.engines import (
    QUICK_BACKENDS,
    SMALL,
    Run,
    autoregressive,
    load,
    make_adapter,
    make_prompt,
)
from tests.factories import make_checkpoint

EXIT_LAYER = 2
# One token, the end of a chunk of the caches, over it; and how many are to follow.
PROMPTS = ((1, 9), (2, 30), (40, 31), (63, 5), (64, 12), (17, 1), (70, 20), (5, 26))
MAX_LEN = 100
DRAFTS: dict[str, dict[str, Any]] = {
    "off": {"max_depth": 0},
    "chain": {"confidence": 0.1},
    "long chain": {"confidence": 0.0, "max_depth": 9},
    "tree": {"draft": "tree", "confidence": 0.05},
    "largest tree": {"draft": "tree", "confidence": 0.0, "max_nodes": 64, "max_depth": 9},
    "static tree": {"draft": "tree", "tree_widths": (3, 2, 1)},
}


@pytest.fixture(scope="module", params=QUICK_BACKENDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    overrides = SMALL | {"num_hidden_layers": 3, "max_position_embeddings": 102}
    path = make_checkpoint(tmp_path_factory.mktemp("target"), "qwen3", **overrides)
    return load(path, request.param)


@pytest.fixture(scope="module")
def alone(model: Llama) -> list[Run]:
    return [autoregressive(model, r.tokens, r.num_left) for r in requests_of(model)]


def requests_of(model: Llama) -> list[Request]:
    return [
        Request(make_prompt(model, prompt_len, seed), num_new)
        for seed, (prompt_len, num_new) in enumerate(PROMPTS)
    ]


def decoder_of(model: Llama, kind: AdapterKind, **options: Any) -> Decoder:
    config = DraftConfig(EXIT_LAYER, **options)
    drafter = BranchingDrafter if config.draft == "tree" else KangarooDrafter
    made = drafter(model, make_adapter(model, kind, EXIT_LAYER), config)
    return Decoder(model, made, config, keep_logits=True)


def finished(batch: Batch) -> Iterator[dict[int, Round]]:
    while len(batch):
        yield batch.step()


def joined(rounds: list[Round]) -> tuple[list[int], Tensor]:
    logits = [round_.logits for round_ in rounds if round_.logits is not None]
    return [token for round_ in rounds for token in round_.tokens], torch.cat(logits)


@pytest.mark.parametrize("capacity", [1, 3, 8])
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("draft", DRAFTS)
def test_tokens_and_bits_are_those_of_decoding_alone(
    model: Llama, alone: list[Run], draft: str, kind: AdapterKind, capacity: int
) -> None:
    """Sequences join as others leave; every third round one is preempted."""
    rng = random.Random(capacity)
    batch = Batch(decoder_of(model, kind, **DRAFTS[draft]), capacity, MAX_LEN)
    numbers = [batch.add(request) for request in requests_of(model)]
    done: dict[int, list[Round]] = {number: [] for number in numbers}
    for step, rounds in enumerate(finished(batch)):
        assert 0 < len(rounds) <= capacity
        for number, round_ in rounds.items():
            done[number].append(round_)
        if step % 3 == 1 and batch.running:
            batch.preempt(rng.choice(batch.running))
    for number, run in zip(numbers, alone, strict=True):
        tokens, logits = joined(done[number])
        assert tokens == run.tokens
        testing.assert_same_bits(logits, run.logits)


@pytest.mark.parametrize("draft", ["chain", "tree"])
def test_drafts_are_those_of_decoding_alone(model: Llama, draft: str) -> None:
    """The adapter's rows too: a drafter beside others is as good as alone."""
    for kind in ADAPTER_KINDS:
        decoder = decoder_of(model, kind, **DRAFTS[draft])
        together = decode_together(decoder, requests_of(model))
        for request, rounds in zip(requests_of(model), together, strict=True):
            single = list(decoder.generate(request))
            for mine, theirs in zip(rounds.done, single, strict=True):
                assert (mine.tokens, mine.num_drafted) == (theirs.tokens, theirs.num_drafted)


def test_every_sequence_ends_where_it_says(model: Llama, alone: list[Run]) -> None:
    """Its own end-of-sequence tokens, its own criteria, its own length."""
    requests = requests_of(model)
    requests[1].eos_ids = {alone[1].tokens[7]}
    requests[2].criteria = (lambda ids, _: ids.shape[1] >= 40 + 5,)
    first = alone[1].tokens.index(alone[1].tokens[7])
    sequences = decode_together(decoder_of(model, "paper", confidence=0.0), requests)
    lengths = {1: first + 1, 2: 5}
    for n, (rounds, run) in enumerate(zip(sequences, alone, strict=True)):
        assert rounds.tokens == run.tokens[: lengths.get(n, len(run.tokens))]
        assert requests[n].tokens[-len(rounds.tokens) :] == rounds.tokens
        assert requests[n].num_left == 0


@pytest.mark.parametrize("draft", ["chain", "tree"])
def test_a_sequence_can_be_cancelled_after_every_round(
    model: Llama, alone: list[Run], draft: str
) -> None:
    """It keeps what it has; the others do not notice; another takes its row."""
    for rounds_first in range(4):
        requests = requests_of(model)
        batch = Batch(decoder_of(model, "paper", **DRAFTS[draft]), 4, MAX_LEN)
        numbers = [batch.add(request) for request in requests]
        for _ in range(rounds_first):
            batch.step()
        assert batch.cancel(numbers[2]) is requests[2]
        assert batch.cancel(numbers[7]) is requests[7], "it had no row yet"
        with pytest.raises(ValueError, match="^number: expected a sequence that has not ended"):
            batch.cancel(numbers[2])
        kept = len(requests[2].tokens)
        for _ in finished(batch):
            pass
        assert len(requests[2].tokens) == kept
        assert requests[2].tokens[40:] == alone[2].tokens[: kept - 40]
        for n in (0, 1, 3, 4, 5, 6):
            assert requests[n].tokens[PROMPTS[n][0] :] == alone[n].tokens


@pytest.mark.parametrize("draft", ["chain", "tree"])
def test_a_round_that_fails_leaves_every_sequence_as_it_was(
    model: Llama, alone: list[Run], draft: str
) -> None:
    """A criterion that raises: the round can be taken again, or the sequence be cancelled."""
    calls = []

    def breaks(ids: Tensor, _: None) -> bool:
        calls.append(ids.shape[1])
        if len(calls) in (3, 9, 16):
            raise OSError("the disk is full")
        return False

    requests = requests_of(model)
    requests[2].criteria = (breaks,)
    batch, failures = Batch(decoder_of(model, "paper", **DRAFTS[draft]), 8, MAX_LEN), 0
    for request in requests:
        batch.add(request)
    while len(batch):
        before = [len(request.tokens) for request in requests]
        try:
            batch.step()
        except OSError:
            failures += 1
            assert [len(request.tokens) for request in requests] == before
    assert failures == 3
    for n, run in enumerate(alone):
        assert requests[n].tokens[PROMPTS[n][0] :] == run.tokens


def test_a_prompt_that_is_prefilled_once(model: Llama, alone: list[Run]) -> None:
    """Several sequences go on behind it; what was prefilled is not changed by that."""
    decoder = decoder_of(model, "deep_prefix", confidence=0.0)
    request = requests_of(model)[2]
    with torch.inference_mode():
        prefilled = decoder.prefill(request)
    for _ in range(2):
        batch = Batch(decoder, 2, MAX_LEN)
        requests = [Request(list(request.tokens), num_left) for num_left in (31, 7, 20)]
        for each in requests:
            batch.add(each, prefilled)
        for _ in finished(batch):
            pass
        for each, num_new in zip(requests, (31, 7, 20), strict=True):
            assert each.tokens[40:] == alone[2].tokens[:num_new]
    assert len(request.tokens) == 40


def test_refusals(model: Llama) -> None:
    decoder = decoder_of(model, "paper")
    with pytest.raises(ValueError, match="^capacity: expected at least 1, got 0$"):
        Batch(decoder, 0, 10)
    batch = Batch(decoder, 2, 10)
    with pytest.raises(ValueError, match="^prompt: expected at least one token, got none$"):
        batch.add(Request([], 3))
    with pytest.raises(ValueError, match="^max_len: expected at least 11, got 10$"):
        batch.add(Request([1, 2, 3], 8))
    with pytest.raises(ValueError, match="^number: expected a sequence that has a row, got 0$"):
        batch.preempt(0)
    assert batch.add(Request([1, 2], 0)) == 0, "there is nothing to do"
    assert len(batch) == 0
    assert batch.step() == {}
