"""What decoding on a GPU is held to; a bar that is missed stays in the record with its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bars import Bar
from benchmarks.report import chosen

AR_PERCENT = 85.0  # of a copy
FLOOR_SHARE, OVER_FLOOR = 0.9, 1.12  # a round beside its bytes at so much of a copy
REALISED = 0.93  # of the speed-up that bytes and acceptance allow


def step_bars(figures: Sequence[Mapping[str, Any]], copy_gb_per_s: float) -> list[Bar]:
    """Of the figures that README shows; none where they were not measured."""
    steps = chosen(figures)
    if not steps:
        return []
    whole = steps["round"]
    floor_us = whole["num_bytes"] / (FLOOR_SHARE * copy_gb_per_s * 1e3)
    counted, over = whole["launches"], "over its bytes at 90 % of a copy"
    return [
        Bar(
            f"AR step behind {whole['context']}, percent of a copy",
            steps["AR step"]["percent_of_copy"],
            AR_PERCENT,
        ),
        *(
            Bar(f"{name} {over}", steps[name]["p50_us"] / floor_us, OVER_FLOOR, at_least=False)
            for name in ("round", "streamed round")
            if name in steps
        ),
        Bar(
            "waits of the host inside a round",
            None if counted is None else counted["waits"],
            0,
            at_least=False,
            note="the profiler saw no kernels" if counted is None else "",
        ),
    ]


def race_bar(chain: Mapping[str, Any]) -> Bar:
    """Of the row of chains: the speed-up beside the one that is allowed."""
    realised = chain["speedup_median"] / chain["allowed_speedup"]
    return Bar("speed-up of chains, of what bytes and acceptance allow", realised, REALISED)
