"""The fastest rule is the one that enumeration finds, and what was measured is counted right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

from kangaroo import KangarooForCausalLM
from kangaroo.engine.decode import Round
from kangaroo.evals import tuning
from kangaroo.evals.tuning import (
    Candidate,
    RoundTimes,
    Settings,
    Tuning,
    chains,
    decoded,
    measured,
    ranked,
    tune,
)
from kangaroo.train.simulate import Trace

TIMES = RoundTimes(draft=(1.0, 3.0, 5.0), verify=(8.0, 9.0, 10.0), host=(1.0, 1.0, 1.0))


def trace_of(seed: int, num_slots: tuple[int, ...] = (20, 7)) -> Trace:
    rng = torch.Generator().manual_seed(seed)
    shape = 2, len(num_slots), max(num_slots)
    return Trace(
        torch.rand(shape, generator=rng) < 0.6, torch.rand(shape, generator=rng), num_slots
    )


def test_a_chain_by_hand() -> None:
    """Five tokens, all drafts right and sure: a round of two drafts, then one of one draft."""
    trace = Trace(torch.ones(2, 1, 5, dtype=torch.bool), torch.ones(2, 1, 5), (5,))
    deep = {c.options["max_depth"]: c for c in chains("a", trace, TIMES, (0.5,))}
    assert sorted(deep) == [1, 2]
    assert deep[2].options == {"draft": "chain", "max_depth": 2, "confidence": 0.5}
    assert deep[2].tokens_per_s == 5 / ((5 + 10 + 1) + (3 + 9 + 1))
    assert (deep[2].compression_ratio, deep[2].drafts_per_round) == (2.5, 1.5)
    # Depth 1: tokens 2, 2, 1; nothing is drafted where one token is left.
    assert deep[1].tokens_per_s == 5 / (13 + 13 + 10)


@given(seed=st.integers(0, 2**32), scale=st.floats(0.05, 4.0))
def test_the_best_is_what_enumeration_finds(seed: int, scale: float) -> None:
    """Rounds are walked through anew here, for every rule."""
    times = replace(TIMES, draft=tuple(scale * s for s in TIMES.draft))
    trace = trace_of(seed)
    agree, sure = trace.agree.tolist(), trace.confidence.tolist()

    def seconds(confidence: float, max_depth: int) -> float:
        spent = 0.0
        for n, length in enumerate(trace.num_slots):
            slot = 0
            while slot < length:
                drafted, right = 0, True
                new = 1
                while drafted < min(max_depth, length - slot - 1):
                    right = right and agree[drafted][n][slot + drafted]
                    new += right
                    drafted += 1
                    if sure[drafted - 1][n][slot + drafted - 1] < confidence:
                        break
                spent += times.draft[drafted] + times.verify[drafted] + times.host[drafted]
                slot += new
        return spent

    confidences = (0.0, 0.3, 0.7, 1.0)
    found = chains("a", trace, times, confidences)
    assert len(found) == len(confidences) * 2
    best = ranked(found)[0]
    least = min(seconds(c, depth) for c in confidences for depth in (1, 2))
    assert best.tokens_per_s == pytest.approx(sum(trace.num_slots) / least)


def test_of_equally_fast_ones_the_one_that_drafts_less() -> None:
    fast, lean = Candidate("a", {"draft": "chain"}, 2.0, 3.0, 9.0), Candidate("", {}, 1.0, 0.0, 9.0)
    slow = replace(lean, tokens_per_s=8.0)
    assert ranked([slow, fast, lean]) == [lean, fast, slow]


def test_costs_of_adaptive_drafting() -> None:
    """A step costs 2 of the 10 that a round without drafts takes, a row 1."""
    assert TIMES.costs == (pytest.approx(0.2), pytest.approx(0.1))
    assert replace(TIMES, verify=(8.0, 8.0, 7.0)).costs[1] == 0.0


@pytest.fixture(scope="module")
def llms(folder: Path) -> dict[str, KangarooForCausalLM]:
    kinds = ("paper", "deep_prefix")
    return {kind: KangarooForCausalLM.from_pretrained(folder, kind) for kind in kinds}


def test_what_is_measured(
    llms: dict[str, KangarooForCausalLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Medians of whole rounds of each depth, also behind a prompt that nearly fills the context."""
    monkeypatch.setattr(tuning, "TURNS", 1)
    llm = llms["paper"]
    prompt = [5] * llm.model.config.max_seq_len
    times = measured(llm, prompt, Settings(max_depth=3))
    assert [len(stage) for stage in (times.draft, times.verify, times.host)] == [4, 4, 4]
    assert all(seconds > 0 for seconds in times.draft + times.verify + times.host)


def tuned(
    llms: dict[str, KangarooForCausalLM], monkeypatch: pytest.MonkeyPatch, draft_s: float
) -> Tuning:
    """Where drafting takes so long and everything else a second."""

    def told(*_: Any) -> RoundTimes:
        return RoundTimes(tuple(draft_s * n for n in range(5)), verify=(1.0,) * 5, host=(0.0,) * 5)

    steps: list[str] = []
    monkeypatch.setattr(tuning, "measured", told)
    settings = Settings(max_new_tokens=12, max_depth=4, tree_budgets=(), lookups=())
    found = tune(llms, [[5, 6, 7], [9]], settings, steps.append)
    assert len(steps) == tuning.STEPS * len(llms) + 1
    assert found.achieved["identical"] is True
    return found


def test_the_choice(llms: dict[str, KangarooForCausalLM], monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts that cost nothing are made, and decoding keeps as many as was told; those that cost
    too much are not.
    """
    free = tuned(llms, monkeypatch, 0.0)
    assert free.choice.options["draft"] == "chain"
    assert free.choice.compression_ratio == free.achieved["compression_ratio"] > 1
    assert free.options["costs"] == [0.0, 0.0]
    assert {c.adapter for c in free.candidates} == {"", "paper", "deep_prefix"}
    assert len(free.candidates) == 1 + 2 * 4 * len(tuning.CONFIDENCES)
    assert free.as_dict()["adapter"] == free.choice.adapter
    dear = tuned(llms, monkeypatch, 9.0)
    assert dear.choice.options == dear.options == {"draft": "off"}
    assert dear.best_chain("paper").adapter == "paper"


def test_trees_are_decoded(llms: dict[str, KangarooForCausalLM]) -> None:
    rule = {"draft": "tree", "max_nodes": 6}
    tree = decoded("paper", llms["paper"], [[5, 6, 7]], 9, rule)
    assert (tree.adapter, tree.options) == ("paper", rule)
    assert 1 < tree.drafts_per_round <= 5
    assert tree.tokens_per_s > 0


class Told:
    """Decodes as it is told; what a round takes is twice what it counts, behind a long prefill."""

    generation_config = GenerationConfig()

    def __init__(self, rounds: list[Round]):
        self._rounds, self.now = rounds, 0.0

    def rounds(self, prompt: list[int], **options: Any) -> Iterator[Round]:
        assert options["lookup"] == 2
        assert options["adaptive"] is False
        self.now += 500.0
        for each in self._rounds:
            self.now += 2 * sum(each.seconds)
            yield each


def test_rounds_count_by_the_median_of_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first, three short ones, one of which was disturbed, and a copy."""
    rounds = [Round([1, 2], 2, 1, (1.0, seconds, 0.0)) for seconds in (5.0, 1.0, 2.0, 90.0)]
    rounds.append(Round([1] * 12, 15, 11, (0.0, 6.0, 0.0)))
    llm: Any = Told(rounds)
    monkeypatch.setattr(tuning, "perf_counter", lambda: llm.now)
    rule = {"draft": "chain", "lookup": 2}
    found = decoded("a", llm, [[5]], 20, rule)
    assert found == Candidate("a", rule, 20 / 5, 23 / 5, 20 / (4 * 6.0 + 12.0))


def test_copies_go_in_front_of_the_fastest_rule(
    llms: dict[str, KangarooForCausalLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are not deployed with an adapter, whose rule they are not."""
    tried = []

    def told(adapter: str, *args: Any) -> Candidate:
        tried.append(args[-1])
        return Candidate(adapter, args[-1], 9.0, 1.0, 1e9)

    monkeypatch.setattr(tuning, "decoded", told)
    monkeypatch.setattr(tuning, "measured", lambda *_: TIMES)
    settings = Settings(max_new_tokens=4, max_depth=2, tree_budgets=(7,), lookups=(1, 3))
    found = tune({"paper": llms["paper"]}, [[5, 6, 7]], settings, len)
    tree = {"draft": "tree", "max_nodes": 7}
    assert tried == [tree, tree | {"lookup": 1}, tree | {"lookup": 3}]
    assert found.achieved["identical"] is True
    monkeypatch.setattr(
        tuning, "decoded", lambda adapter, *args: replace(told(adapter, *args), tokens_per_s=1e-9)
    )
    chain = tune({"paper": llms["paper"]}, [[5, 6, 7]], settings, len).best_chain("paper")
    assert tried[-1] == chain.options | {"lookup": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 1}, "max_new_tokens: expected at least 2, got 1"),
        ({"max_depth": 0}, "max_depth: expected 1 to 63, got 0"),
        ({"max_depth": 64}, "max_depth: expected 1 to 63, got 64"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Settings(**options)


def test_without_an_adapter(folder: Path) -> None:
    bare = KangarooForCausalLM.from_pretrained(folder)
    with pytest.raises(ValueError, match="^adapter: expected one to tune, got none$"):
        tuning.traced(bare, [[5]], Settings())
