"""Statistics add up, for one sequence and for several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kangaroo.engine.decode import Round
from kangaroo.engine.stats import Rounds, Speculation, StageSeconds

ROUNDS = [
    Round([5, 6, 7], num_drafted=4, num_accepted=2, seconds=(1.0, 2.0, 0.5)),
    Round([8], num_drafted=2, num_accepted=0, seconds=(0.5, 2.0, 0.5)),
    Round([9, 10, 11, 12, 13], num_drafted=4, num_accepted=4, seconds=(1.0, 2.0, 0.5)),
]


def test_counts_and_rates() -> None:
    """Entry n of the histograms counts rounds; position n is reached by every longer one."""
    speculation = Speculation.of(ROUNDS, prefill_s=3.0)
    assert (speculation.num_tokens, speculation.num_rounds) == (9, 3)
    assert (speculation.num_drafted, speculation.num_accepted) == (10, 6)
    assert speculation.drafted_lens == (0, 0, 1, 0, 2)
    assert speculation.accepted_lens == (1, 0, 1, 0, 1)
    assert speculation.drafted_at == (3, 3, 2, 2)
    assert speculation.accepted_at == (2, 2, 1, 1)
    assert speculation.acceptance_rate == 0.6
    assert speculation.compression_ratio == 3.0
    assert speculation.seconds == StageSeconds(prefill=3.0, draft=2.5, verify=6.0, commit=1.5)
    assert speculation.tokens_per_s == 0.9
    assert sum(speculation.drafted_at) == speculation.num_drafted
    assert sum(speculation.accepted_at) == speculation.num_accepted


def test_positions_that_were_drafted_and_never_accepted_are_listed() -> None:
    speculation = Speculation.of([Round([1], 3, 0, (0.0, 0.0, 0.0))])
    assert (speculation.drafted_at, speculation.accepted_at) == ((1, 1, 1), (0, 0, 0))


def test_nothing_happened() -> None:
    speculation = Speculation.of([])
    rates = (
        speculation.acceptance_rate,
        speculation.compression_ratio,
        speculation.tokens_per_s,
    )
    assert rates == (0.0, 0.0, 0.0)
    assert speculation.drafted_at == speculation.accepted_at == ()


@pytest.mark.parametrize("cut", range(4))
def test_sums_are_those_of_all_rounds_together(cut: int) -> None:
    parts = Speculation.of(ROUNDS[:cut], prefill_s=1.0) + Speculation.of(
        ROUNDS[cut:], prefill_s=2.0
    )
    assert parts == Speculation.of(ROUNDS, prefill_s=3.0)


def test_as_dict_names_every_figure() -> None:
    report = Speculation.of(ROUNDS, prefill_s=3.0).as_dict()
    assert report["accepted_lens"] == [1, 0, 1, 0, 1]
    stages = {name: report[name] for name in ("prefill_s", "draft_s", "verify_s", "commit_s")}
    assert stages == {"prefill_s": 3.0, "draft_s": 2.5, "verify_s": 6.0, "commit_s": 1.5}


def test_prefill_is_what_the_first_round_took_beyond_its_stages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The decoder prefills when its first round is asked for; a clock of ours shows it."""
    clock = [100.0]
    monkeypatch.setattr("kangaroo.engine.stats.perf_counter", lambda: clock[0])

    def decode() -> Iterator[Any]:
        clock[0] += 7.0  # prefill
        for each in ROUNDS:
            clock[0] += sum(each.seconds)
            yield each

    rounds = Rounds(decode())
    assert rounds.tokens == []
    assert next(rounds) is ROUNDS[0]
    assert rounds.tokens == [5, 6, 7]
    assert rounds.speculation == Speculation.of(ROUNDS[:1], prefill_s=7.0)
    assert list(rounds) == ROUNDS[1:]
    assert rounds.speculation == Speculation.of(ROUNDS, prefill_s=7.0)
