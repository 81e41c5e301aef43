"""Which rows belong to which table."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.ablations.rows import EXITS, MIDDLE, Row
from benchmarks.ablations.students import Shape
from kangaroo.train.config import LossConfig

LAYERS, EXIT = 16, 2  # of tiny-py; its adapters leave it here
PAPER, DEEP_PREFIX = "paper", "deep_prefix"


def verified(deep_layer: int | None, *, successor: bool = False, borrowed: bool = False) -> Row:
    """Verified slots' rows see the state behind so many layers, and the token behind the slot."""
    return Row(Shape(EXIT, deep_layer=deep_layer, successor=successor, borrowed=borrowed))


PREFIX: dict[str, Row] = {
    PAPER: Row(Shape(EXIT)),
    "exit state twice": verified(EXIT),
    "last state": verified(LAYERS),
    "last layer's own KV (GLIDE)": verified(LAYERS - 1, borrowed=True),
    "successor": verified(None, successor=True),
    "exit state twice, successor": verified(EXIT, successor=True),
    f"layer {MIDDLE}, successor": verified(MIDDLE, successor=True),
    DEEP_PREFIX: verified(LAYERS, successor=True),
    "all slots: state in front": Row(Shape(EXIT, front=True)),
    "all slots: state in front, token": Row(Shape(EXIT, front=True, token=True)),
}
LEARNT = PREFIX[DEEP_PREFIX].shape
ADAPTER: dict[str, Row] = {
    PAPER: PREFIX[PAPER],
    "attention, own head": Row(Shape(EXIT, own_head=True)),
    "full layer": Row(Shape(EXIT, mlp=True)),
    "MLP only": Row(Shape(EXIT, attention=False, mlp=True)),
}
EXIT_LAYER: dict[str, Row] = {
    PAPER if n == EXIT else f"{PAPER}, exit at {n}": Row(Shape(n)) for n in EXITS
}
LOSSES = {
    "hard": LossConfig(hard=1.0),
    "total variation": LossConfig(tv=1.0),
    "soft and total variation": LossConfig(soft=0.5, tv=1.0),
}
LOSS: dict[str, Row] = {
    DEEP_PREFIX: PREFIX[DEEP_PREFIX],
    **{f"{DEEP_PREFIX}, {name}": Row(LEARNT, loss) for name, loss in LOSSES.items()},
}
HEADS: dict[str, Row] = {
    DEEP_PREFIX: PREFIX[DEEP_PREFIX],
    "Medusa-1": Row(Shape(1), kind="medusa"),
    "EAGLE-style head": Row(Shape(1), kind="eagle"),
}
DATA: dict[str, Row] = {
    DEEP_PREFIX: PREFIX[DEEP_PREFIX],
    f"{DEEP_PREFIX}, unrolled": Row(LEARNT, unrolled=True),
    f"{DEEP_PREFIX}, target's answers": Row(LEARNT, answers=True),
    f"{DEEP_PREFIX}, target's answers, unrolled": Row(LEARNT, answers=True, unrolled=True),
}
TREE: dict[str, Row] = {
    f"{PAPER} in the engine": Row(Shape(EXIT), kind="paper", judged="trees"),
    f"{DEEP_PREFIX} in the engine": Row(Shape(EXIT), kind="deep_prefix", judged="trees"),
}
STREAM: dict[str, Row] = {
    f"{PAPER} on a stream": Row(Shape(EXIT), judged="stream"),
    f"{DEEP_PREFIX} on a stream": Row(LEARNT, judged="stream"),
}
BOTH = {name: PREFIX[name] for name in (PAPER, DEEP_PREFIX)}
TABLES: dict[str, dict[str, Row]] = {
    "prefix": PREFIX,
    "adapter": ADAPTER,
    "exit-layer": EXIT_LAYER,
    "loss": LOSS,
    "data": DATA,
    "heads": HEADS,
    "tree": TREE,
    "stream": STREAM,
    "threshold": BOTH,
    "gamma": BOTH,
}


def rows_of(tables: Iterable[str]) -> dict[str, Row]:
    """The rows of these tables by name, each once."""
    return {name: row for table in tables for name, row in TABLES[table].items()}
