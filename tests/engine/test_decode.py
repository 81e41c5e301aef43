"""The decode loop ends exactly where it must, and its account of what it did adds up."""

from __future__ import annotations

from typing import Any

import pytest

from kangaroo.config import ADAPTER_KINDS, MAX_TREE_NODES, AdapterKind, DraftConfig
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.models.llama import Llama
from tests.engines import (
    SMALL,
    NoisyDrafter,
    PerfectDrafter,
    WrongDrafter,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
    num_live,
    request_of,
)
from tests.factories import make_checkpoint

DEPTH = 6
NUM_TOKENS = (
    53  # so that prompt and continuation fill the target's context, and whole chunks of the caches
)
PROMPT_LEN = 11
CONTEXT = PROMPT_LEN + NUM_TOKENS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    overrides = SMALL | {"vocab_size": 211, "max_position_embeddings": CONTEXT}
    return load(make_checkpoint(tmp_path_factory.mktemp("target"), "llama", **overrides))


@pytest.fixture(scope="module")
def prompt(model: Llama) -> list[int]:
    """One whose continuation starts with different tokens: each can end it at its own offset."""
    for seed in range(100):
        prompt = make_prompt(model, PROMPT_LEN, seed)
        if len(set(autoregressive(model, prompt, 2 * DEPTH).tokens)) == 2 * DEPTH:
            return prompt
    raise AssertionError("the target repeats itself")


@pytest.fixture(scope="module")
def expected(model: Llama, prompt: list[int]) -> list[int]:
    return autoregressive(model, prompt, NUM_TOKENS).tokens


def make(
    drafter: type[PerfectDrafter],
    model: Llama,
    tokens: list[int],
    kind: AdapterKind = "paper",
    **config: Any,
) -> Any:
    """A decoder with a drafter that knows `tokens`."""
    draft = DraftConfig(exit_layer=1, **config)
    return decoder_of(drafter(model, make_adapter(model, kind, 1), draft, tokens))


# How many tokens.


@pytest.mark.parametrize("max_new_tokens", range(2 * DEPTH + 1))
def test_exactly_as_many_tokens_as_asked_for(
    model: Llama, prompt: list[int], expected: list[int], max_new_tokens: int
) -> None:
    """A block that would run over is drafted shorter; no round is empty."""
    decoder = make(PerfectDrafter, model, prompt + expected)
    rounds = list(decoder.generate(request_of(prompt, max_new_tokens)))
    assert [token for round_ in rounds for token in round_.tokens] == expected[:max_new_tokens]
    full, rest = divmod(max_new_tokens, DEPTH + 1)
    assert [len(round_.tokens) for round_ in rounds] == [DEPTH + 1] * full + [rest] * (rest > 0)
    assert [round_.num_drafted for round_ in rounds] == [len(r.tokens) - 1 for r in rounds]


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("drafter", [PerfectDrafter, NoisyDrafter, WrongDrafter])
def test_the_whole_context_can_be_filled(
    model: Llama, prompt: list[int], expected: list[int], kind: AdapterKind, drafter: Any
) -> None:
    """The deepest drafts stay inside the context, and inside caches that are exactly as long."""
    assert len(prompt) + NUM_TOKENS == model.config.max_seq_len == 64
    run = make(drafter, model, prompt + expected, kind, max_depth=40).run(prompt, NUM_TOKENS)
    assert run.tokens == expected
    assert run.state.deep_kv.num_slots == model.config.max_seq_len + MAX_TREE_NODES


def test_one_token_more_than_the_context_is_refused(model: Llama, prompt: list[int]) -> None:
    decoder = make(PerfectDrafter, model, prompt)
    message = "^max_new_tokens: expected at most 53 behind 11 prompt tokens .* 64.*, got 54$"
    with pytest.raises(ValueError, match=message):
        next(decoder.generate(request_of(prompt, NUM_TOKENS + 1)))


@pytest.mark.parametrize("drafter", [PerfectDrafter, NoisyDrafter])
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_a_prompt_of_one_token(model: Llama, kind: AdapterKind, drafter: Any) -> None:
    """Nothing is prefilled: the root is the first thing that any cache sees."""
    expected = autoregressive(model, [5], 30).tokens
    assert make(drafter, model, [5, *expected], kind).run([5], 30).tokens == expected


# Where a sequence ends.


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("offset", range(2 * DEPTH))
def test_nothing_follows_an_end_of_sequence_token(
    model: Llama, prompt: list[int], expected: list[int], offset: int, kind: AdapterKind
) -> None:
    """Wherever in a block it stands, it is the last token; the caches end where the tokens do."""
    run = make(PerfectDrafter, model, prompt + expected, kind).run(
        prompt, NUM_TOKENS, {expected[offset]}
    )
    assert run.tokens == expected[: offset + 1]
    blocks, inside = divmod(offset, DEPTH + 1)
    assert len(run.rounds) == blocks + 1
    last = run.rounds[-1]
    assert (last.num_drafted, last.num_accepted) == (DEPTH, min(inside + 1, DEPTH))
    assert run.state.requests[0].tokens == prompt + run.tokens
    root = run.state.prefix_lens[0]
    for cache in (run.state.shallow_kv, run.state.deep_kv):
        assert (cache.slots.committed, cache.num_nodes) == ([root], 0)
    assert num_live(run.state.adapter_kv) <= root


@pytest.mark.parametrize("max_depth", [0, 1, DEPTH])
@pytest.mark.parametrize("drafter", [PerfectDrafter, NoisyDrafter, WrongDrafter])
def test_the_first_of_several_end_of_sequence_tokens_counts(
    model: Llama, prompt: list[int], expected: list[int], drafter: Any, max_depth: int
) -> None:
    decoder = make(drafter, model, prompt + expected, max_depth=max_depth)
    for offset in (0, 3, 5):
        eos_ids = {expected[offset], expected[offset + 1], expected[offset + 4]}
        assert decoder.run(prompt, NUM_TOKENS, eos_ids).tokens == expected[: offset + 1]


def test_only_the_targets_own_token_ends_a_sequence(
    model: Llama, prompt: list[int], expected: list[int]
) -> None:
    """One that is drafted and rejected does not; nor does one in the prompt."""
    eos = next(token for token in range(model.config.vocab_size) if token not in expected)
    always_eos = [eos] * CONTEXT
    run = make(PerfectDrafter, model, always_eos).run(prompt, NUM_TOKENS, {eos})
    assert run.tokens == expected
    assert run.num_accepted == 0
    prompt = [eos, *prompt[1:]]
    expected = autoregressive(model, prompt, 8).tokens
    assert eos not in expected
    assert make(PerfectDrafter, model, prompt + expected).run(prompt, 8, {eos}).tokens == expected


# What the rounds say.


class LoggingDrafter(NoisyDrafter):
    """Keeps what it has said, by position."""

    def say(self, position: int) -> tuple[int, float]:
        token, confidence = super().say(position)
        self.log.append((position, token))
        return token, confidence

    log: list[tuple[int, int]]


def test_rounds_add_up(model: Llama, prompt: list[int], expected: list[int]) -> None:
    """Drafted: all that was said. Accepted: what was right before the first that was not."""
    decoder = make(LoggingDrafter, model, prompt + expected, max_depth=4)
    decoder.drafter.log = []
    position = len(prompt)
    for round_ in decoder.generate(request_of(prompt, NUM_TOKENS)):
        said = [token for _, token in decoder.drafter.log]
        assert [p for p, _ in decoder.drafter.log] == list(range(position, position + len(said)))
        right = [token == expected[position - len(prompt) + i] for i, token in enumerate(said)]
        num_right = (right + [False]).index(False)
        assert (round_.num_drafted, round_.num_accepted) == (len(said), num_right)
        assert len(round_.tokens) == num_right + 1
        assert round_.tokens[:-1] == said[:num_right]
        assert all(seconds >= 0 for seconds in round_.seconds)
        position += len(round_.tokens)
        decoder.drafter.log.clear()
    assert position == CONTEXT


class UnsureDrafter(PerfectDrafter):
    """Sure of most tokens, but not of those whose position is a multiple of three."""

    def say(self, position: int) -> tuple[int, float]:
        return self.tokens[position], 0.25 if position % 3 == 0 else 0.75


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_the_unsure_token_is_kept_and_nothing_is_drafted_behind_it(
    model: Llama, prompt: list[int], expected: list[int], kind: AdapterKind
) -> None:
    """It is verified like any other; the drafter is always right, so all it drafts is accepted."""
    run = make(UnsureDrafter, model, prompt + expected, kind, confidence=0.5).run(prompt, 40)
    position = len(prompt) - 1  # of the root
    for round_ in run.rounds[:-1]:
        assert round_.num_drafted == 3 - position % 3
        assert round_.num_accepted == round_.num_drafted
        position += len(round_.tokens)
    assert run.tokens == expected[:40]


def test_as_sure_as_asked_for_is_sure_enough(
    model: Llama, prompt: list[int], expected: list[int]
) -> None:
    run = make(UnsureDrafter, model, prompt + expected, confidence=0.25).run(prompt, 35)
    assert [round_.num_drafted for round_ in run.rounds] == [DEPTH] * 5


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize(
    ("max_depth", "confidence", "num_drafted"),
    [(0, 0.0, 0), (0, 1.0, 0), (1, 0.0, 1), (DEPTH, 1.0, 1), (DEPTH, 0.0, DEPTH), (3, 0.0, 3)],
)
def test_ends_of_the_stopping_rule(
    model: Llama,
    prompt: list[int],
    kind: AdapterKind,
    max_depth: int,
    confidence: float,
    num_drafted: int,
) -> None:
    """Certainty asked for: one token a round, kept though unsure. Nothing: always full depth."""
    config = DraftConfig(1, max_depth, confidence)
    decoder = decoder_of(KangarooDrafter(model, make_adapter(model, kind, 1), config))
    left = 30
    for round_ in decoder.generate(request_of(prompt, left)):
        assert round_.num_drafted == min(num_drafted, left - 1)
        left -= len(round_.tokens)
    assert left == 0


def test_without_an_adapter_nothing_is_drafted(
    model: Llama, prompt: list[int], expected: list[int]
) -> None:
    run = decoder_of(KangarooDrafter(model, None, DraftConfig(1, DEPTH, 0.0))).run(prompt, 20)
    assert run.tokens == expected[:20]
    assert [(r.num_drafted, r.num_accepted, len(r.tokens)) for r in run.rounds] == [(0, 0, 1)] * 20


def test_sequences_do_not_disturb_each_other(
    model: Llama, prompt: list[int], expected: list[int]
) -> None:
    """A sequence owns all its state: rounds of several may be interleaved, or abandoned."""
    decoder = make(PerfectDrafter, model, prompt + expected, max_depth=2)
    first, second = (
        decoder.generate(request_of(*asked)) for asked in ((prompt, 30), (prompt[:1], 1))
    )
    tokens = next(first).tokens + next(first).tokens
    next(second)
    abandoned = decoder.generate(request_of(prompt, 30))
    next(abandoned)
    abandoned.close()
    tokens += [token for round_ in first for token in round_.tokens]
    assert tokens == expected[:30]
    assert len(prompt) == PROMPT_LEN
