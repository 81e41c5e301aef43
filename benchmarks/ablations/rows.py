"""What a row of a table is, and how much all of them train and judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.ablations.students import Shape
from kangaroo.train.config import LossConfig, at_least

EXITS, MIDDLE = (1, 2, 4, 8), 10  # layers of tiny-py whose states are kept for all rows


@dataclass(frozen=True)
class Settings:
    """How much is trained and judged: the same for all rows."""

    num_steps: int = 360
    batch_size: int = 8
    seq_len: int = 256
    lr: float = 3e-3
    max_depth: int = 6
    num_prompts: int = 40
    prompt_len: int = 64
    new_tokens: int = 128

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "num_prompts"):
            at_least(self, name, 1)


@dataclass(frozen=True)
class Row:
    """What is trained, how, and on what.

    Attributes:
        shape: of an adapter of any shape; of the engine's own kinds only the exit layer is read.
        unrolled: a slot counts where the student's own drafts in front of it are the target's, as
            decoding comes there.
        answers: trained on what the target writes behind beginnings of the training files, not on
            the files.
        judged: by chains alone; by the engine's chains and trees too; or by a stream of prose too,
            from which it goes on learning.
    """

    shape: Shape = Shape()
    loss: LossConfig = LossConfig(soft=1.0)
    kind: Literal["adapter", "paper", "deep_prefix", "medusa", "eagle"] = "adapter"
    unrolled: bool = False
    answers: bool = False
    judged: Literal["chains", "trees", "stream"] = "chains"
