"""What speculation did for one sequence, or for many together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from kangaroo.engine.decode import Round


@dataclass(frozen=True)
class StageSeconds:
    """Host time of prefill, and of all rounds' drafting, verification and commit, in seconds. A
    round that a GPU runs alone is all verification.
    """

    prefill: float = 0.0
    draft: float = 0.0
    verify: float = 0.0
    commit: float = 0.0

    @property
    def decode(self) -> float:
        """Everything behind the prefill."""
        return self.draft + self.verify + self.commit


@dataclass(frozen=True)
class Speculation:
    """Counts over rounds.

    Attributes:
        num_tokens: committed tokens, bonus tokens included.
        num_rounds: verify passes.
        drafted_lens, accepted_lens: histograms; entry n: rounds that drafted (accepted) n tokens.
        seconds: where the time went.
    """

    num_tokens: int
    num_rounds: int
    drafted_lens: tuple[int, ...]
    accepted_lens: tuple[int, ...]
    seconds: StageSeconds

    @classmethod
    def of(cls, rounds: Iterable[Round], prefill_s: float = 0.0) -> Speculation:
        """Counts of `rounds`; `prefill_s` is the time in front of the first."""
        rounds = list(rounds)
        draft, verify, commit = (
            sum(r.seconds[stage] for r in rounds) if rounds else 0.0 for stage in range(3)
        )
        return cls(
            num_tokens=sum(len(r.tokens) for r in rounds),
            num_rounds=len(rounds),
            drafted_lens=_histogram(r.num_drafted for r in rounds),
            accepted_lens=_histogram(r.num_accepted for r in rounds),
            seconds=StageSeconds(prefill_s, draft, verify, commit),
        )

    @property
    def num_drafted(self) -> int:
        return sum(n * rounds for n, rounds in enumerate(self.drafted_lens))

    @property
    def num_accepted(self) -> int:
        return sum(n * rounds for n, rounds in enumerate(self.accepted_lens))

    @property
    def acceptance_rate(self) -> float:
        """Accepted per drafted token; 0 where nothing was drafted."""
        return self.num_accepted / self.num_drafted if self.num_drafted else 0.0

    @property
    def compression_ratio(self) -> float:
        """Committed tokens per verify pass; 0 where there was none."""
        return self.num_tokens / self.num_rounds if self.num_rounds else 0.0

    @property
    def drafted_at(self) -> tuple[int, ...]:
        """Entry n: rounds that drafted n + 1 tokens or more."""
        return _tails(self.drafted_lens)

    @property
    def accepted_at(self) -> tuple[int, ...]:
        """Entry n: rounds whose draft token n + 1 was accepted; as long as `drafted_at`."""
        accepted = _tails(self.accepted_lens)
        return accepted + (0,) * (len(self.drafted_at) - len(accepted))

    @property
    def tokens_per_s(self) -> float:
        """Committed tokens over decoding time, prefill left out; 0 where no time was taken."""
        return self.num_tokens / self.seconds.decode if self.seconds.decode else 0.0

    def __add__(self, other: Speculation) -> Speculation:
        """Both together."""
        mine, theirs = self.seconds, other.seconds
        return Speculation(
            num_tokens=self.num_tokens + other.num_tokens,
            num_rounds=self.num_rounds + other.num_rounds,
            drafted_lens=_sum(self.drafted_lens, other.drafted_lens),
            accepted_lens=_sum(self.accepted_lens, other.accepted_lens),
            seconds=StageSeconds(
                mine.prefill + theirs.prefill,
                mine.draft + theirs.draft,
                mine.verify + theirs.verify,
                mine.commit + theirs.commit,
            ),
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: counts, rates and seconds."""
        return {
            "num_tokens": self.num_tokens,
            "num_rounds": self.num_rounds,
            "num_drafted": self.num_drafted,
            "num_accepted": self.num_accepted,
            "acceptance_rate": self.acceptance_rate,
            "compression_ratio": self.compression_ratio,
            "drafted_at": list(self.drafted_at),
            "accepted_at": list(self.accepted_at),
            "accepted_lens": list(self.accepted_lens),
            "tokens_per_s": self.tokens_per_s,
            "prefill_s": self.seconds.prefill,
            "draft_s": self.seconds.draft,
            "verify_s": self.seconds.verify,
            "commit_s": self.seconds.commit,
        }


class Rounds(Iterator[Round]):
    """The rounds of one sequence as they are decoded, and their statistics so far.

    Attributes:
        done: those that have been decoded.
    """

    def __init__(
        self, rounds: Iterable[Round] = (), done: Sequence[Round] = (), prefill_s: float = 0.0
    ):
        self._rounds = iter(rounds)
        self.done = list(done)
        self._prefill_s = prefill_s

    def __next__(self) -> Round:
        started = perf_counter()
        latest = next(self._rounds)
        if not self.done:  # a decoder prefills when its first round is asked for
            self._prefill_s = max(0.0, perf_counter() - started - sum(latest.seconds))
        self.done.append(latest)
        return latest

    @property
    def tokens(self) -> list[int]:
        """New tokens so far."""
        return [token for r in self.done for token in r.tokens]

    @property
    def speculation(self) -> Speculation:
        return Speculation.of(self.done, self._prefill_s)


def _histogram(lens: Iterable[int]) -> tuple[int, ...]:
    counts = Counter(lens)
    return tuple(counts[n] for n in range(max(counts, default=-1) + 1))


def _tails(histogram: tuple[int, ...]) -> tuple[int, ...]:
    """Entry n: how many of the histogram's items are longer than n."""
    return tuple(sum(histogram[n:]) for n in range(1, len(histogram)))


def _sum(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    length = max(len(a), len(b))
    return tuple(sum(h[n] for h in (a, b) if n < len(h)) for n in range(length))
