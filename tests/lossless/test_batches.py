"""Batches over a target that notices every row, slot and position that is not as it should be.

Sequences of any length join and leave, are cancelled, preempted and disturbed between rounds; what
each must say is told in advance, without a cache.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest
from torch import Tensor

from kangaroo.cache import SlotCache, Slots
from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft import tree as draft_tree
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine import decode
from kangaroo.engine.batch import Batch
from kangaroo.engine.decode import Decoder
from kangaroo.engine.state import DecodeState, Request
from tests.engines import poison
from tests.lossless.hash_target import (
    VOCAB_SIZE,
    HashAdapter,
    HashTarget,
    continuation,
)
from tests.lossless.test_hash_target import predicted
from tests.sampling.test_mutants import mutated

MAX_LEN = 120
DRAFTS: dict[str, dict[str, Any]] = {
    "off": {"draft": "off"},
    "chain": {"confidence": 0.4},
    "adaptive chain": {"confidence": 0.4, "adaptive": True, "costs": (0.25, 0.05)},
    "bold chain": {"confidence": 0.0, "max_depth": 4},
    "tree": {"draft": "tree", "confidence": 0.4},
    "largest tree": {"draft": "tree", "confidence": 0.0, "max_nodes": 64, "draft_top_k": 4},
    "static tree": {"draft": "tree", "tree_widths": (3, 2, 1)},
}


class PoisonedChains(KangarooDrafter):
    """Leaves NaN in every slot, and for every node, that no one has a right to read."""

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        poison(state)
        return super().draft(state, max_depths)


class PoisonedTrees(BranchingDrafter):
    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        poison(state)
        return super().draft(state, max_depths)


def decoder_of(kind: AdapterKind, **options: Any) -> Decoder:
    config, target = DraftConfig(2, **options), HashTarget()
    drafter = PoisonedTrees if config.draft == "tree" else PoisonedChains
    adapter: Any = HashAdapter(kind) if config.depth else None
    return Decoder(target, drafter(target, adapter, config), config)  # type: ignore[arg-type]


class Faulty:
    """A criterion that raises once, at a length of its choice, and ends its sequence at another."""

    def __init__(self, raises_at: int, ends_at: int):
        self.raises_at, self.ends_at = raises_at, ends_at

    def __call__(self, ids: Tensor, _: None) -> bool:
        if ids.shape[1] == self.raises_at:
            self.raises_at = -1
            raise OSError("the disk is full")
        return ids.shape[1] >= self.ends_at


@dataclass
class Sequence:
    """What is asked for, and what must come of it."""

    request: Request
    prompt_len: int
    expected: list[int]
    cancelled: bool = False

    @classmethod
    def drawn(cls, rng: random.Random) -> Sequence:
        """Of any length, with an end-of-sequence token or a criterion somewhere, or neither."""
        prompt = [rng.randrange(VOCAB_SIZE) for _ in range(rng.choice([1, 2, 5, 30, 63, 64]))]
        num_new = rng.randint(1, MAX_LEN - len(prompt) - 5)
        request, expected = Request(list(prompt), num_new), continuation(prompt, num_new)
        if (way := rng.randrange(4)) == 0:
            request.eos_ids = {rng.choice(expected)}
            num_new = next(n for n, t in enumerate(expected, 1) if t in request.eos_ids)
        elif way == 1:
            num_new = rng.randint(1, num_new)
            total = len(prompt) + num_new
            request.criteria = (Faulty(rng.randint(len(prompt) + 1, total), total),)
        return cls(request, len(prompt), expected[:num_new])

    def is_right(self) -> bool:
        """All of it, or the beginning of what was cancelled."""
        new = self.request.tokens[self.prompt_len :]
        return new == (self.expected[: len(new)] if self.cancelled else self.expected)


@dataclass
class Storm:
    """A batch, and what befalls it."""

    batch: Batch
    rng: random.Random
    living: dict[int, Sequence] = field(default_factory=dict)
    num_tokens: int = 0
    is_right: bool = True

    def run(self, num_sequences: int) -> Storm:
        """Until so many sequences have ended; a batch that comes to no end is wrong."""
        for _ in range(200 * num_sequences):
            while num_sequences and self.rng.random() < 0.5:
                sequence, num_sequences = Sequence.drawn(self.rng), num_sequences - 1
                self.living[self.batch.add(sequence.request)] = sequence
            self._step()
            self._disturb()
            for number in [n for n, s in self.living.items() if not s.request.num_left]:
                self._end(number)
            if not num_sequences and not self.living:
                return self
        self.is_right = False
        return self

    def _step(self) -> None:
        while True:  # every criterion raises once
            try:
                self.batch.step()
            except OSError:
                continue
            return

    def _disturb(self) -> None:
        event = self.rng.random()
        if event < 0.2 and self.batch.running:
            self.batch.preempt(self.rng.choice(self.batch.running))
        elif event < 0.25 and len(self.batch):
            number = self.rng.choice([n for n, s in self.living.items() if s.request.num_left])
            self.living[number].cancelled = True
            assert self.batch.cancel(number) is self.living[number].request
            self._end(number)

    def _end(self, number: int) -> None:
        sequence = self.living.pop(number)
        self.is_right = self.is_right and sequence.is_right()
        self.num_tokens += len(sequence.request.tokens) - sequence.prompt_len


def storm(decoder: Decoder, capacity: int, num_sequences: int) -> Storm:
    return Storm(Batch(decoder, capacity, MAX_LEN), random.Random(capacity)).run(num_sequences)


@pytest.mark.parametrize("capacity", range(1, 9))
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("draft", DRAFTS)
def test_every_sequence_says_what_it_must(draft: str, kind: AdapterKind, capacity: int) -> None:
    result = storm(decoder_of(kind, **DRAFTS[draft]), capacity, num_sequences=6)
    assert result.is_right
    assert result.num_tokens > 20


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("draft", DRAFTS)
def test_a_million_tokens(draft: str, kind: AdapterKind) -> None:
    """Fourteen ways, each an equal part of them."""
    num_tokens = 0
    for seed in range(10**6):
        batch = Batch(decoder_of(kind, **DRAFTS[draft]), 1 + seed % 8, MAX_LEN)
        result = Storm(batch, random.Random(seed)).run(40)
        assert result.is_right, seed
        num_tokens += result.num_tokens
        if num_tokens >= 10**6 / (2 * len(DRAFTS)):
            return


def knows(decoder: Decoder, num_new: int = 40, **said: Any) -> bool:
    """Every round of 12 sequences drafts and keeps as many tokens as can be told in advance, by
    what is `said` of the drafter, with others beside it and after an interruption: a row that is
    wrong in the drafter's cache changes no token, but which drafts are right.
    """
    rng = random.Random(3)
    batch, done = Batch(decoder, 5, MAX_LEN), list[list[tuple[int, int]]]()
    prompts = [[rng.randrange(VOCAB_SIZE) for _ in range(n)] for n in (1, 2, 5, 30, 63, 64) * 2]
    for prompt in prompts:
        batch.add(Request(list(prompt), num_new))
        done.append([])
    for step in range(500):
        for number, r in batch.step().items():
            done[number].append((r.num_drafted, r.num_accepted))
        if step % 3 == 2 and batch.running:
            batch.preempt(rng.choice(batch.running))
    config = decoder.config
    if config.draft == "chain":  # the tree of one token behind every other
        config = replace(config, draft="tree", draft_top_k=1, max_nodes=1 + config.max_depth)
    return all(
        rounds == list(predicted(config, prompt, num_new, **said))
        for rounds, prompt in zip(done, prompts, strict=True)
    )


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("draft", ["bold chain", "chain", "tree", "static tree"])
def test_an_adapter_in_a_batch_knows_what_it_should(draft: str, kind: AdapterKind) -> None:
    assert knows(decoder_of(kind, **DRAFTS[draft]))


# Name, function, what stands in it, what a mistake would put there.
MUTANTS: list[tuple[str, Callable[..., Any], str, str]] = [
    ("a slot too many", DecodeState.settle, "(prefix_lens)", "([n + 1 for n in prefix_lens])"),
    ("a slot too few", DecodeState.settle, "(prefix_lens)", "([n - (n > 0) for n in prefix_lens])"),
    ("lengths of the first", Slots.commit, "torch.tensor(lengths", "torch.tensor(lengths[:1]"),
    ("positions not moved", Slots.commit, "self.cache_seqlens[:, None]", "self.positions * 0"),
    ("nothing is compacted", DecodeState.commit, "if any(", "if not any("),
    ("the first decides", DecodeState.commit, "for path in paths)", "for path in paths[:1])"),
    ("rows stay when one leaves", DecodeState.leave, "if row != last:", "if False:"),
    ("the wrong row moves", DecodeState.leave, "_copy(row, self, last)", "_copy(last, self, row)"),
    ("a slot less is copied", SlotCache.copy, ":length] = source", ":length - 1] = source"),
    ("the joined row is another", DecodeState.join, "self._copy(row,", "self._copy(0,"),
    ("a failed round is half there", DecodeState.forget_nodes, "cache.num_nodes = 0", "pass"),
    ("ancestors of the first", draft_tree.places, "in tree.ancestors", "in trees[0].ancestors"),
    ("padding has a parent", DraftTree.pad, "append(-1)", "append(0)"),
    ("criteria of the first", decode.kept, "request.criteria", "state.requests[0].criteria"),
    ("ends of the first", decode.kept, "request.eos_ids", "state.requests[0].eos_ids"),
    ("limits of the first", decode.kept, "else request.num", "else state.requests[0].num"),
    ("counted before it fails", decode.kept, "new.append(", "request.num_left -= 1; new.append("),
    ("paths of the first", decode.kept, "[path[: len(t)]", "[paths[0][: len(t)]"),
]


# Mistakes that cost drafts, not tokens.
ADAPTER_MUTANTS: list[tuple[str, Callable[..., Any], str, str]] = [
    ("never catches up", KangarooDrafter._catch_up, "or not any(lags)", "or True"),
    ("catches up with the first", KangarooDrafter._catch_up, "h[b, lag", "h[0, lag"),
    ("all are behind", KangarooDrafter._from_behind, "if all(lags)", "if any(lags)"),
    ("behind the last rows", KangarooDrafter.verified, "h_deep.shape[1], 0", "h_deep.shape[1], 1"),
    ("state of another node", DecodeState.commit, "1 + path[-1]", "path[-1]"),
    ("state is not kept", DecodeState.commit, "states[b, 0] = ", "states[b, 1] = "),
    ("seen by the first", DecodeState.commit, "committed[b] + own", "committed[0] + own"),
    ("state does not move", DecodeState._copy, "source.exit_states[source_row, 0]", "0"),
]


def survives() -> bool:
    return all(
        storm(decoder_of("paper", **DRAFTS[draft]), 3, num_sequences=20).is_right
        for draft in ("bold chain", "tree", "static tree")
    )


def all_known() -> bool:
    ways = product(ADAPTER_KINDS, ("bold chain", "tree"))
    return all(knows(decoder_of(kind, **DRAFTS[draft])) for kind, draft in ways)


def test_the_code_as_it_is_survives() -> None:
    assert survives()
    assert all_known()


@pytest.mark.parametrize(
    ("judge", "function", "old", "new"),
    [
        pytest.param(judge, *mutant, id=name)
        for judge, mutants in ((survives, MUTANTS), (all_known, ADAPTER_MUTANTS))
        for name, *mutant in mutants
    ],
)
def test_mutants_are_killed(
    monkeypatch: pytest.MonkeyPatch,
    judge: Callable[[], bool],
    function: Callable[..., Any],
    old: str,
    new: str,
) -> None:
    """By tokens or accepted lengths that are wrong, by a refusal, or by a batch without an end."""
    monkeypatch.setattr(function, "__code__", mutated(function, old, new))
    try:
        right = judge()
    except (ValueError, IndexError, RuntimeError, AssertionError):
        right = False
    assert not right
