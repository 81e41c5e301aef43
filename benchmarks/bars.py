"""What a figure has to reach, and whether it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PASS, FAIL, NOT_MEASURED = "PASS", "FAIL", "NOT MEASURED"


@dataclass(frozen=True)
class Bar:
    """A figure and its limit.

    Attributes:
        value: None where it could not be measured; `note` says why.
        at_least: the limit is a floor; else a ceiling.
    """

    name: str
    value: float | None
    limit: float
    at_least: bool = True
    note: str = ""

    @property
    def verdict(self) -> str:
        """A figure that is not a number fails."""
        if self.value is None:
            return NOT_MEASURED
        held = self.value >= self.limit if self.at_least else self.value <= self.limit
        return PASS if held else FAIL

    def __str__(self) -> str:
        value = "" if self.value is None else f"{self.value:.6g}"
        note = f" ({self.note})" if self.note else ""
        return (
            f"{self.verdict:12} {self.name:56}{value:>10} {'>=' if self.at_least else '<='} "
            f"{self.limit:g}{note}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        value = None if self.value is None else round(self.value, 6)
        return vars(self) | {"value": value, "verdict": self.verdict}


def exit_code(bars: Sequence[Bar]) -> int:
    """1 where a bar fails; what could not be measured fails nothing."""
    return int(any(bar.verdict == FAIL for bar in bars))
