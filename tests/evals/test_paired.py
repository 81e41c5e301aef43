"""Paired runs take turns, count tokens by id, and tell when ids differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kangaroo import KangarooForCausalLM
from kangaroo.engine.decode import Round
from kangaroo.engine.stats import Speculation
from kangaroo.evals.paired import (
    Comparison,
    Run,
    as_dict,
    compare,
    median_ratio,
    take_turns,
    total,
    warm_up,
)
from tests.engines import FIXED

SPECULATION = Speculation.of(
    [Round([1, 2, 3], 3, 2, (1.0, 1.0, 0.0)), Round([4], 1, 0, (1.0, 1.0, 0.0))]
)
FAST = Run([1, 2, 3, 4], prefill_s=0.5, decode_s=2.0, speculation=SPECULATION)
SLOW = Run([1, 2, 3, 4], prefill_s=0.5, decode_s=4.0)


@pytest.fixture(scope="module")
def llm(folder: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(folder, "paper")


def test_everyone_goes_first_in_turn() -> None:
    order: list[str] = []

    def contestant(name: str) -> Run:
        order.append(name)
        return replace(SLOW, prefill_s=float(len(order)))

    runs = take_turns({name: lambda name=name: contestant(name) for name in "abc"}, 4)
    assert "".join(order) == "abcbcacababc"
    assert [run.prefill_s for run in runs["b"]] == [2.0, 4.0, 9.0, 11.0]


def test_speed_ups_are_ratios_within_a_turn() -> None:
    """A turn in which the machine was slow for both does not count for or against any."""
    both_slow = [replace(run, decode_s=100 * run.decode_s) for run in (SLOW, FAST)]
    assert median_ratio([SLOW, both_slow[0], SLOW], [FAST, both_slow[1], SLOW]) == 2.0
    assert median_ratio([], []) == 0.0


def test_figures_of_a_comparison() -> None:
    comparison = Comparison([9], [FAST, FAST], [SLOW, SLOW])
    assert comparison.identical
    assert comparison.speedup == 2.0
    totals = total([comparison, comparison])
    assert totals["num_prompts"] == 2
    assert totals["num_tokens"] == 8
    assert totals["compression_ratio"] == 2.0
    assert (totals["tokens_per_s"], totals["ar_tokens_per_s"]) == (2.0, 1.0)
    assert totals["speedup"] == totals["median_speedup"] == 2.0
    assert totals["identical"] is True


@pytest.mark.parametrize("place", range(4))
def test_one_other_id_in_any_run_is_told(place: int) -> None:
    runs = [FAST, FAST, SLOW, SLOW]
    runs[place] = replace(runs[place], token_ids=[1, 2, 3, 5])
    comparison = Comparison([9], runs[:2], runs[2:])
    assert not comparison.identical
    assert total([comparison])["identical"] is False


def test_comparing_for_real(llm: KangarooForCausalLM) -> None:
    options = FIXED | {"max_new_tokens": 9, "eos_token_id": None, "confidence": 0.0}
    warm_up(llm, [5, 6], **options)
    comparison = compare(llm, [5, 6], 2, **options)
    assert comparison.identical
    assert [len(runs) for runs in (comparison.speculative, comparison.autoregressive)] == [2, 2]
    for run in comparison.autoregressive:
        assert run.speculation is not None
        assert (run.speculation.num_rounds, run.speculation.num_drafted) == (9, 0)
    assert comparison.speculation.num_drafted > 0
    report = as_dict(llm, comparison)
    assert report["token_ids"] == report["ar_token_ids"] == comparison.token_ids
    assert report["text"] == llm.tokenizer.decode(comparison.token_ids, skip_special_tokens=True)
