"""Rounds that the device runs alone say, draft and keep what the loop does step by step."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import pytest
import torch

from kangaroo.config import ADAPTER_KINDS, MAX_TREE_NODES, AdapterKind, DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.engine.batch import Batch
from kangaroo.engine.decode import Decoder, Round
from kangaroo.engine.graphs import AHEAD, GraphDecoder
from kangaroo.engine.state import DecodeState, PastKeyValues, Request
from kangaroo.models.llama import Llama
from tests.engine.played import PlayedRounds
from tests.engines import QUICK_BACKENDS, SMALL, load, make_adapter, make_prompt, poison
from tests.factories import make_checkpoint

EXIT_LAYER, CONTEXT = 2, 130
KINDS: tuple[AdapterKind | None, ...] = (None, *ADAPTER_KINDS)
Counts = list[tuple[list[int], int, int]]
CHAIN: dict[str, Any] = {"draft": "chain"}
TREES: list[dict[str, Any]] = [
    {"draft": "tree"},
    {"draft": "tree", "max_nodes": 30, "max_depth": 4, "draft_top_k": 3},
    {"draft": "tree", "tree_widths": (3, 2, 1, 1)},
]
DRAFTS = [CHAIN, TREES[0], TREES[2]]


@pytest.fixture(scope="module", params=QUICK_BACKENDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    overrides = SMALL | {"num_hidden_layers": 3, "max_position_embeddings": CONTEXT}
    path = make_checkpoint(tmp_path_factory.mktemp("target"), "qwen3", **overrides)
    return load(path, request.param)


class PoisonedGraphs(GraphDecoder):
    """Leaves NaN, before each round that the host begins, where no one has a right to read."""

    def round(self, state: DecodeState) -> list[Round]:
        if self._live is None:
            fronts = state.exit_states[:, 0].clone()
            poison(state)
            state.exit_states[: len(state.requests), 0] = fronts[: len(state.requests)]
        return super().round(state)


def decoders(
    model: Llama, kind: AdapterKind | None, **options: Any
) -> tuple[Decoder, PoisonedGraphs]:
    """Step by step, and by rounds of the device."""
    config = DraftConfig(EXIT_LAYER, **(options if kind else {"max_depth": 0}))
    adapter = make_adapter(model, kind, EXIT_LAYER) if kind else None
    drafters = BranchingDrafter if config.draft == "tree" else KangarooDrafter
    drafter = drafters(model, adapter, config)
    plain = Decoder(model, drafter, config)
    return plain, PoisonedGraphs(drafter, PlayedRounds)


def counts(rounds: list[Round]) -> Counts:
    return [(r.tokens, r.num_drafted, r.num_accepted) for r in rounds]


def request_of(model: Llama, prompt_len: int, num_new: int, **ends: Any) -> Request:
    return Request(make_prompt(model, prompt_len, prompt_len), num_new, **ends)


def decode(decoder: Decoder, request: Request, past: PastKeyValues | None = None) -> Counts:
    return counts(list(decoder.generate(request, past)))


def assert_same(ours: Counts, theirs: Counts, config: DraftConfig) -> None:
    """Round by round. Only the host drafts and copies less where few tokens are left: a chain keeps
    what it would have kept, a tree that may not be deep is another tree.
    """
    most = max(config.depth, config.lookup_depth if config.lookup else 0)
    said = [[t for tokens, *_ in counts for t in tokens] for counts in (ours, theirs)]
    assert said[0] == said[1]
    left = len(said[1])
    if config.draft != "tree":
        assert [tokens for tokens, *_ in ours] == [tokens for tokens, *_ in theirs]
    for mine, each in zip(ours, theirs, strict=config.draft != "tree"):
        if left <= most:
            break
        assert mine == each
        left -= len(each[0])


@pytest.mark.parametrize(
    "options",
    [
        {"confidence": 0.0},
        {"confidence": 0.12, "max_depth": 9},
        *({"confidence": confidence} | tree for tree in TREES for confidence in (0.0, 0.12)),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt_len", [1, 2, 64])
def test_every_round_is_that_of_the_loop(
    model: Llama, kind: AdapterKind | None, options: dict[str, Any], prompt_len: int
) -> None:
    plain, graphs = decoders(model, kind, **options)
    expected = decode(plain, request_of(model, prompt_len, 60))
    for _ in range(2):  # and again with the caches and the graphs that are there
        ours = decode(graphs, request_of(model, prompt_len, 60))
        assert_same(ours, expected, plain.config)
    if kind:
        accepted = sum(num_accepted for *_, num_accepted in expected)
        assert 0 < accepted < sum(num_drafted for _, num_drafted, _ in expected)


def test_the_device_leaves_out_what_no_chain_needs(model: Llama) -> None:
    """Rounds are launched ahead, and none is run behind the end."""
    _, graphs = decoders(model, "paper", confidence=0.12, max_depth=9)
    ours = decode(graphs, request_of(model, 12, 60))
    (rounds,) = graphs._captured.values()
    assert isinstance(rounds.runtime, PlayedRounds)
    assert rounds.shape.ahead == AHEAD
    assert rounds.runtime.num_launched == len(ours)
    assert (
        rounds.runtime.num_steps == sum(num_drafted for _, num_drafted, _ in ours) < 9 * len(ours)
    )


@pytest.mark.parametrize(
    ("draft", "step_cost"),
    [(CHAIN, 0.3), (CHAIN, 0.9), (TREES[0], 0.9), (TREES[0], 1.5), (TREES[2], 0.9)],
)
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_drafts_that_do_not_pay(
    model: Llama, kind: AdapterKind, draft: dict[str, Any], step_cost: float
) -> None:
    """Rounds of the same depths, some of none where steps are dear, as where the host decides after
    each of them; steps that are left out cost nothing.
    """
    confidence = 0.15 if draft == TREES[0] else 0.0
    options = draft | {"confidence": confidence, "adaptive": True, "costs": (step_cost, 0.0)}
    plain, graphs = decoders(model, kind, **options)
    expected = decode(plain, request_of(model, 12, 100))
    ours = decode(graphs, request_of(model, 12, 100), PastKeyValues())
    assert_same(ours, expected, plain.config)
    drafted = [num_drafted for _, num_drafted, _ in expected[:-1]]
    assert min(drafted) < max(drafted)
    ahead = decode(graphs, request_of(model, 12, 100))
    assert [t for tokens, *_ in ahead for t in tokens] == [t for each, *_ in ours for t in each]
    paused = 0 in drafted, 0 in [num_drafted for _, num_drafted, _ in ahead[:-1]]
    assert paused == (draft != TREES[0] or step_cost > 1,) * 2


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_every_end(model: Llama, kind: AdapterKind, draft: dict[str, Any]) -> None:
    """By length, by token and by criterion, at every offset; one capture serves all lengths."""
    plain, graphs = decoders(model, kind, confidence=0.0, **draft)
    whole = [t for tokens, *_ in decode(plain, request_of(model, 20, 40)) for t in tokens]
    for length in (*range(1, 9), 13, 29):
        for ends in (
            {},
            {"eos_ids": frozenset({whole[length], whole[length + 2]})},
            {"criteria": [lambda ids, _, n=length: ids.shape[1] >= 20 + n]},
        ):
            num_new = length if not ends else 40
            tokens = [request_of(model, 20, num_new, **ends) for _ in range(2)]
            decode(plain, tokens[0])
            decode(graphs, tokens[1])
            assert tokens[0].tokens == tokens[1].tokens
            assert tokens[1].num_left == 0


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation(model: Llama, kind: AdapterKind | None, draft: dict[str, Any]) -> None:
    """What is kept between calls is good for either way to decode, where the first came to its end
    and where its consumer left.
    """
    plain, graphs = decoders(model, kind, confidence=0.0, **draft)
    cases = product(((5, []), (6, [3, 4, 5]), (7, []), (8, [3]), (9, [])), (40, None))
    for (stop, rest), num_new in cases:
        pasts = []
        for first in (plain, graphs):
            past, request = PastKeyValues(), request_of(model, 30, num_new or stop)
            rounds = first.generate(request, past)
            while len(request.tokens) < 30 + stop:
                next(rounds)
            rounds.close()  # type: ignore[attr-defined]
            pasts.append(past)
        again = request.tokens[: 30 + stop] + rest
        expected = decode(plain, Request(list(again), 12))
        for past in pasts:
            for second in (plain, graphs):
                ours = decode(second, Request(list(again), 12), PastKeyValues(past.state))
                assert_same(ours, expected, plain.config)


def test_a_consumer_that_leaves_early_costs_the_next_one_nothing(model: Llama) -> None:
    plain, graphs = decoders(model, "paper", confidence=0.0)
    expected = decode(plain, request_of(model, 9, 50))
    for _ in range(3):
        rounds = graphs.generate(request_of(model, 33, 60))
        next(rounds), next(rounds)
        assert graphs.busy
        rounds.close()  # type: ignore[attr-defined]
        assert not graphs.busy
        assert_same(decode(graphs, request_of(model, 9, 50)), expected, plain.config)


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_longer_text_than_the_one_before(
    model: Llama, draft: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caches that are kept have room for its tokens, but not for the nodes behind them."""
    monkeypatch.setattr("kangaroo.engine.graphs.ROOM", 1)
    plain, graphs = decoders(model, "paper", confidence=0.0, **draft)
    for lengths in ((1, MAX_TREE_NODES - 1), (40, 2 * MAX_TREE_NODES - 45)):
        expected = decode(plain, request_of(model, *lengths))
        assert_same(decode(graphs, request_of(model, *lengths)), expected, plain.config)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_has_the_room_that_it_asks_for(model: Llama, batch: int) -> None:
    plain, graphs = decoders(model, "paper", confidence=0.0)
    ours, theirs = (each.new_state(batch, 40).shallow_kv.storage for each in (graphs, plain))
    assert ours.shape == theirs.shape


def test_a_longer_text_needs_no_new_capture(model: Llama) -> None:
    _, graphs = decoders(model, "paper", confidence=0.0)
    decode(graphs, request_of(model, 10, 20))
    captured = list(graphs._captured.values())
    decode(graphs, request_of(model, 50, 70))
    assert list(graphs._captured.values()) == captured


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("kind", KINDS)
def test_batches(model: Llama, kind: AdapterKind | None, draft: dict[str, Any]) -> None:
    """Sequences join, leave, are cancelled and preempted; a criterion raises once; each says what
    it says alone, with the drafts that it has alone but for the ends.
    """
    plain, graphs = decoders(model, kind, confidence=0.12, **draft)
    lengths = [(1, 30), (2, 9), (40, 31), (63, 5), (17, 1), (70, 20), (5, 26)]
    alone = [decode(plain, request_of(model, *each)) for each in lengths]
    rng, batch = random.Random(5), Batch(graphs, 4, 100)
    requests = [request_of(model, *each, criteria=[Faulty(rng)]) for each in lengths]
    done: dict[int, list[Round]] = {batch.add(request): [] for request in requests}
    num_faults = 0
    while len(batch):
        try:
            for number, latest in batch.step().items():
                done[number].append(latest)
        except InterruptedError:
            num_faults += 1
        if batch.running and rng.random() < 0.2:
            batch.preempt(rng.choice(batch.running))
    for number, theirs in enumerate(alone):
        tokens = [t for r in done[number] for t in r.tokens]
        assert tokens == [t for each, *_ in theirs for t in each]
    assert num_faults > 3
    if kind:
        ours = sum(r.num_accepted for rounds in done.values() for r in rounds)
        assert ours > 0


class Faulty:
    """Raises now and then."""

    def __init__(self, rng: random.Random):
        self.rng = rng

    def __call__(self, ids: torch.Tensor, scores: None) -> bool:
        if self.rng.random() < 0.05:
            raise InterruptedError
        return False


def test_logits_that_are_not_finite(model: Llama) -> None:
    """An error where the loop has one, and the next call is as if nothing had been."""
    plain, graphs = decoders(model, "deep_prefix", confidence=0.0)
    expected = decode(plain, request_of(model, 9, 40))
    whole = [t for tokens, *_ in expected for t in tokens]
    culprit = model.weights.embed[whole[20]]
    kept = culprit.clone()
    for decoder in (plain, graphs):
        request = request_of(model, 9, 40)
        culprit.fill_(torch.nan)
        with pytest.raises(ValueError, match="the logits are not finite"):
            decode(decoder, request)
        culprit.copy_(kept)
        assert request.tokens[9:] == whole[: len(request.tokens) - 9]
        assert_same(decode(decoder, request_of(model, 9, 40)), expected, plain.config)
