"""Drafting that does not pay costs next to nothing, and comes back when it does."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.costs import Cost, RoundCosts
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.pace import ALLOWANCE, MOST, SHARE, START, Pace
from kangaroo.draft.tree import DraftTree, pad
from kangaroo.engine.batch import decode_together
from kangaroo.engine.decode import Decoder
from kangaroo.engine.state import Request
from kangaroo.models.llama import Llama
from kangaroo_kernels import testing
from tests.engines import (
    SMALL,
    PerfectDrafter,
    WrongDrafter,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
)
from tests.factories import make_checkpoint

CHAIN = DraftConfig(2, max_depth=6, adaptive=True)
RULES = {
    "chain": CHAIN,
    "tree": replace(CHAIN, draft="tree", max_nodes=9),
    "static tree": replace(CHAIN, draft="tree", tree_widths=(3, 2, 1)),
    "copies": replace(CHAIN, lookup=1, lookup_depth=9),
}
COSTS = RoundCosts(draft=0.25, row=0.125)
EACH = COSTS.draft + COSTS.row  # draft of a chain


def test_a_round_by_hand() -> None:
    assert COSTS.of_round(1, 0, 1) == 1
    assert COSTS.of_round(1, 4, 5) == 1 + 4 * 0.25 + 4 * 0.125
    # Five rows cost 1.5 passes of one; 20 more of them 2.5.
    assert COSTS.of_round(5, 4, 5) == pytest.approx(1 + 4 * 0.25 + 2.5 / 1.5)
    writing = replace(COSTS, write=0.5)
    assert writing.of_round(1, 0, 1) == 1
    assert writing.of_round(1, 0, 3) == 1 + 2 * 0.125 + 0.5
    assert writing.of_round(5, 4, 5) == COSTS.of_round(5, 4, 5)


def drafted(config: DraftConfig, depth: int, rng: random.Random) -> DraftTree:
    """A draft that `config` may make of `depth` levels, the last of which may be empty."""
    tree = DraftTree.root(0)
    if depth == 0:
        return tree
    tree.num_passes = depth
    if config.tree_widths:
        level = [0]
        for width in config.tree_widths[:depth]:
            level = [tree.add(1, parent) for parent in level for _ in range(width)]
        return tree
    for _ in range(rng.randint(1, depth)):
        tree.add(1, len(tree) - 1)
    while config.draft == "tree" and len(tree) < config.max_nodes and rng.random() < 0.8:
        tree.add(1, 0)
    return tree


@given(
    rule=st.sampled_from(sorted(RULES)),
    batch=st.integers(1, 4),
    draft=st.floats(0.01, 2.0),
    row=st.floats(0.0, 0.5),
    seed=st.integers(0, 2**32),
)
def test_what_it_can_lose(rule: str, batch: int, draft: float, row: float, seed: int) -> None:
    """Whatever is drafted, whatever of it is right, behind every round."""
    rng, config, costs = random.Random(seed), RULES[rule], RoundCosts(draft, row)
    requests = [Request([0], 999) for _ in range(batch)]
    pace, num_tokens, spent, luck = Pace(config, costs), 0, 0.0, 0.5
    for _ in range(40):
        if config.lookup and rng.random() < 0.5:
            assert 0 <= (count := pace.copies(requests)) <= config.lookup_depth
            trees = [DraftTree.chain([0, *[1] * rng.randint(0, count)]) for _ in requests]
        else:
            depth = pace.depth(requests)
            assert 0 <= depth <= config.depth
            trees = [drafted(config, depth, rng) for _ in requests]
        pad(trees)
        luck = rng.random() if rng.random() < 0.1 else luck
        new = sum(1 + sum(rng.random() < luck for _ in range(max(t.depths))) for t in trees)
        num_passes, num_nodes = max(t.num_passes for t in trees), len(trees[0])
        spent += costs.of_round(batch, num_passes, num_nodes)
        num_tokens += new
        pace.book(requests, num_passes, num_nodes, new)
        assert spent <= (1 + ALLOWANCE) * num_tokens / batch + START + 1e-9
        assert len({request.credit for request in requests}) == 1
        assert requests[0].credit <= MOST


def rounds(pace: Pace, request: Request, right: Any, num_rounds: int) -> list[int]:
    """Depths of chains of which `right(n)` tokens of the n-th are right."""
    depths = []
    for n in range(num_rounds):
        depths.append(depth := pace.depth([request]))
        pace.book([request], depth, depth + 1, 1 + min(depth, right(n)))
    return depths


def test_by_hand() -> None:
    """Of 3 half may be lost, and the allowance: 1.52, four drafts of 0.375. Of 1.52 that are left,
    0.78: two; of 0.79, 0.415: one. With 0.435 left 0.02 a round are saved until there are 0.71.
    """
    request = Request([0], 999)
    found = rounds(Pace(CHAIN, COSTS), request, lambda n: 0, 19)
    assert found == [4, 2, 1, *[0] * 14, 1, 0]
    assert request.credit == pytest.approx(19 * ALLOWANCE - 8 * EACH)


def test_copies_by_hand() -> None:
    """Of 3 half may be lost, and the allowance: 1.52, twelve rows of 0.125."""
    pace, asked = Pace(replace(CHAIN, lookup=1), COSTS), [Request([0], 999)]
    assert (pace.copies(asked), pace.depth(asked)) == (12, 4)
    pace.book(asked, 0, 13, 1)
    assert asked[0].credit == pytest.approx(ALLOWANCE - 1.5)
    assert pace.copies(asked) == 6  # 0.78


def test_it_comes_back() -> None:
    """Behind a thousand rounds without a hit all that is tried is right: a few rounds later drafts
    are the deepest.
    """
    request, pace = Request([0], 9999), Pace(CHAIN, COSTS)
    dry = rounds(pace, request, lambda n: 0, 1000)
    assert max(dry[3:]) == 1
    assert sum(dry) * EACH == pytest.approx(START + 1000 * ALLOWANCE, abs=EACH / SHARE)
    again = rounds(pace, request, lambda n: 6, 40)
    first = again.index(1)
    assert first * ALLOWANCE <= EACH
    assert again[first : first + 5] == [1, 1, 2, 4, 6]
    assert set(again[first + 4 :]) == {6}


def test_what_was_won_is_not_lost_for_long() -> None:
    """However much it was: at most MOST and START."""
    request, pace = Request([0], 9999), Pace(CHAIN, COSTS)
    rounds(pace, request, lambda n: 6, 500)
    dry = rounds(pace, request, lambda n: 0, 100)
    assert sum(dry) * EACH <= MOST + START + 100 * ALLOWANCE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    overrides = SMALL | {"num_hidden_layers": 6}
    return load(make_checkpoint(tmp_path_factory.mktemp("target"), "qwen3", **overrides))


NUM_TOKENS = 100


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_decoding(model: Llama, kind: AdapterKind) -> None:
    """Drafts that are never right soon cease, those that always are soon are as deep as they may
    be; ids and bits of logits are those of plain decoding.
    """
    prompt, adapter = make_prompt(model, 9), make_adapter(model, kind, 2)
    plain = autoregressive(model, prompt, NUM_TOKENS)
    runs = {}
    for drafter in (WrongDrafter, PerfectDrafter):
        made = drafter(model, adapter, CHAIN, prompt + plain.tokens)
        runs[drafter] = decoder_of(made).run(prompt, NUM_TOKENS)
        assert runs[drafter].tokens == plain.tokens
        testing.assert_same_bits(runs[drafter].logits, plain.logits)
    costs = made.costs()
    worst = ALLOWANCE * NUM_TOKENS + START
    assert 1 <= runs[WrongDrafter].num_drafted <= worst / (costs.draft + costs.row)
    drafted_lens = [r.num_drafted for r in runs[PerfectDrafter].rounds][:-1]
    assert drafted_lens == sorted(drafted_lens)
    assert drafted_lens[0] < drafted_lens[4] == 6


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_batches(model: Llama, kind: AdapterKind) -> None:
    """Of unequal lengths, some ending early."""
    prompts = [make_prompt(model, 3 + 7 * n, seed=n) for n in range(3)]
    config = replace(CHAIN, confidence=0.02)
    decoder = Decoder(model, KangarooDrafter(model, make_adapter(model, kind, 2), config), config)
    requests = [Request(list(prompt), 25 + 9 * n) for n, prompt in enumerate(prompts)]
    depths = set()
    for prompt, sequence in zip(prompts, decode_together(decoder, requests), strict=True):
        expected = autoregressive(model, prompt, len(sequence.tokens))
        assert sequence.tokens == expected.tokens
        depths |= {round_.num_drafted for round_ in sequence.done}
    assert {0, 1} <= depths


def test_costs(model: Llama) -> None:
    """By the parameters; rows are free but on a CPU, where a round that drafts nothing writes
    nothing, and one that drafts what that one has left too.
    """
    for kind in ADAPTER_KINDS:
        adapter = make_adapter(model, kind, 2)
        cost = Cost.of(model.config, adapter.config)
        costs = KangarooDrafter(model, adapter, CHAIN).costs()
        step, plain = cost.shallow + cost.adapter + cost.head, cost.shallow + cost.deep + cost.head
        assert costs.draft == pytest.approx(step / plain)
        assert costs.row > 0
        host = costs.write - 2 * cost.refresh / plain
        assert 0 < host < 0.2
        on_gpu = RoundCosts.of(model.config, adapter.config, "cuda")
        assert on_gpu == RoundCosts(pytest.approx(step / (plain + cost.refresh)), 0.0)
        assert 1 + on_gpu.draft == pytest.approx(cost.speedup(1, 0) / cost.speedup(1, 1))


def test_costs_may_be_given(model: Llama) -> None:
    config = replace(CHAIN, costs=(0.5, 0.25))
    adapter = make_adapter(model, "paper", 2)
    assert KangarooDrafter(model, adapter, config).costs() == RoundCosts(0.5, 0.25)


def test_there_must_be_costs(model: Llama) -> None:
    with pytest.raises(ValueError, match="^adapter: expected one where drafting is adaptive"):
        Decoder(model, KangarooDrafter(model, None, CHAIN), CHAIN)
    off = replace(CHAIN, max_depth=0)
    assert Decoder(model, KangarooDrafter(model, None, off), off).pace is None


def test_neighbours_have_no_say_in_speculative_sampling() -> None:
    """Its tokens for a seed depend on how deep is drafted, so it is drafted as asked for."""
    llm = KangarooForCausalLM.from_pretrained("tiny-py", "paper")
    drafting = {"adaptive": True, "costs": (0.5, 0.5), "confidence": 0.0}
    sampled = {"do_sample": True, "seed": 3, "draft_sampling": "rejection", "temperature": 2.0}
    said = []
    for others in (0, 3):
        batch = llm.batch(4, 64, **drafting)
        number = batch.add(llm.request([5, 6, 7, 8], max_new_tokens=40, **sampled))
        for other in range(others):
            batch.add(llm.request([100 + other] * 9, max_new_tokens=40, eos_token_id=None))
        done = []
        while number in batch.running or not done:
            done += batch.step()[number].tokens
        said.append(done)
    assert said[0] == said[1]
