"""Decoding replayed from the drafter's guess at every slot: the choice of the stopping rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from kangaroo.costs import Cost


@dataclass(frozen=True)
class Trace:
    """The drafter's guesses along N sequences of the target's own greedy text.

    Attributes:
        agree: [D, N, S] bool: with delta = d + 1, the guess behind slot s is the target's token.
            Slot 0 is the first root, the prompt's last token.
        confidence: [D, N, S] float32, the guess's probability.
        num_slots: slots of each sequence, at most S: the tokens decoding may add.
    """

    agree: Tensor
    confidence: Tensor
    num_slots: tuple[int, ...]


@dataclass(frozen=True)
class Replay:
    """A stopping rule, and what decoding does under it.

    Attributes:
        confidence, max_depth: as in `DraftConfig`.
        compression_ratio: committed tokens per verify pass; drafts_per_round: drafted ones.
        speedup: see `Cost.speedup`.
    """

    confidence: float
    max_depth: int
    compression_ratio: float
    drafts_per_round: float
    speedup: float


def replay(trace: Trace, confidence: float, max_depth: int) -> list[int]:
    """How many tokens each round of greedy chain decoding drafts, of all sequences in turn.

    The engine's rule: a token drafted with less than `confidence` is still verified, and ends the
    draft; a draft is never longer than the tokens that may still be added, less the bonus token.
    Committed tokens are exact. Where the confidences behind a wrong draft are those of the true
    text (`Judge.greedy_trace`), the number of drafts can shift a little.

    Args:
        max_depth: 1 to D.
    """
    agree, sure = trace.agree.tolist(), (trace.confidence >= confidence).tolist()
    drafts = []
    for n, num_slots in enumerate(trace.num_slots):
        root = 0
        while root < num_slots:
            limit = min(max_depth, num_slots - root - 1)
            accepted = depth = 0
            while depth < limit:
                slot = root + depth
                accepted += accepted == depth and agree[depth][n][slot]
                depth += 1
                if not sure[depth - 1][n][slot]:
                    break
            drafts.append(depth)
            root += accepted + 1
    return drafts


def simulate_cr(trace: Trace, confidence: float, max_depth: int) -> tuple[float, float]:
    """(compression ratio, drafts per round) over all sequences; see :func:`replay`."""
    drafts = replay(trace, confidence, max_depth)
    return sum(trace.num_slots) / len(drafts), sum(drafts) / len(drafts)


def tune(trace: Trace, cost: Cost, confidences: Iterable[float]) -> tuple[Replay, ...]:
    """Every stopping rule of `confidences` x depths 1..D."""
    table = []
    for confidence in confidences:
        for max_depth in range(1, len(trace.agree) + 1):
            ratio, drafts = simulate_cr(trace, confidence, max_depth)
            speedup = cost.speedup(ratio, drafts)
            table.append(Replay(confidence, max_depth, ratio, drafts, speedup))
    return tuple(table)
