"""A round (`_C.Round`) around whatever can be captured, and kernels that do next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_TOKENS = 2**31 - 1
NUM_PROGRAMS = 128
Work = Callable[[], object]


@triton.jit
def _set_kernel(flag, value):
    """flag[0] = value."""
    tl.store(flag, value)


@triton.jit
def _count_kernel(stopped, counts, RETURNS_EARLY: tl.constexpr):
    """Every program counts, unless it returns early and drafting has stopped."""
    if RETURNS_EARLY:
        if tl.load(stopped) != 0:
            return
    mine = counts + tl.program_id(0)
    tl.store(mine, tl.load(mine) + 1)


@dataclass(frozen=True)
class Buffers:
    """What a round of one sequence and one node reads and writes: it brings a token a round."""

    stopped: Tensor
    counts: Tensor
    path_len: Tensor
    bonus: Tensor

    @classmethod
    def on(cls, device: torch.device) -> Buffers:
        """Fresh ones."""
        return cls(
            stopped=torch.zeros(1, dtype=torch.int32, device=device),
            counts=torch.zeros(NUM_PROGRAMS, dtype=torch.int32, device=device),
            path_len=torch.ones(1, dtype=torch.int32, device=device),
            bonus=torch.full((1,), 42, dtype=torch.int64, device=device),
        )

    def stop(self, value: bool) -> None:
        """Enqueues that drafting has stopped, or has not."""
        _set_kernel[(1,)](self.stopped, int(value), num_warps=1)

    def count(self, times: int, returns_early: bool) -> None:
        """Enqueues so many kernels."""
        for _ in range(times):
            _count_kernel[(NUM_PROGRAMS,)](self.stopped, self.counts, returns_early, num_warps=4)

    def warm_up(self) -> None:
        """Loads every kernel: none may be loaded during a capture."""
        for value in (False, True):
            self.stop(value)
            self.count(1, value)
        torch.cuda.synchronize()


def capture(round_: Any, stream: torch.cuda.Stream, steps: Sequence[Work], tail: Work) -> None:
    """Makes the round of these pieces; what they enqueue is captured, so it must be loaded."""
    with torch.cuda.stream(stream):
        round_.capture(stream.cuda_stream)
        try:
            for number, step in enumerate(steps):
                round_.begin_step(number)
                step()
                round_.end_step()
            round_.begin_tail()
            tail()
            round_.end_tail()
            round_.finish()
        except BaseException:
            round_.abort()
            raise


@dataclass(frozen=True)
class Rig:
    """A captured round of `steps` that is ready to be launched.

    Attributes:
        mode: of `_C.RoundMode`.
        ahead: rounds that may be unread.
    """

    extension: Any
    mode: Any
    ahead: int
    buffers: Buffers
    steps: Sequence[Work]
    stream: torch.cuda.Stream = field(default_factory=torch.cuda.Stream)
    round: Any = field(init=False)

    def __post_init__(self) -> None:
        b = self.buffers
        sizes = (len(self.steps), self.ahead, 1, 1)
        outputs = (0, 0, b.path_len.data_ptr(), b.bonus.data_ptr(), 0, 0)
        made = self.extension.Round(
            self.mode, sizes, b.stopped.data_ptr(), outputs, (0, 0), eos_ids=[]
        )
        object.__setattr__(self, "round", made)
        capture(made, self.stream, self.steps, lambda: None)
        made.start(0, MAX_TOKENS, self.stream.cuda_stream)

    def launch(self) -> None:
        """Enqueues a round."""
        self.round.launch(self.stream.cuda_stream)

    def wait(self) -> None:
        """Reads a round."""
        self.round.wait()
