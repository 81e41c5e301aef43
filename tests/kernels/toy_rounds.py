"""A toy decoder for rounds: Triton kernels that honour its contract, and what greedy writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

Work = Callable[[], object]


@triton.jit
def _begin_kernel(root, tokens, stopped, NODES: tl.constexpr):
    b = tl.program_id(0)
    if tl.load(stopped + b) != 0:
        return
    tl.store(tokens + b * NODES, tl.load(root + b))


@triton.jit
def _step_kernel(tokens, num_nodes, stopped, num_drafted, NODES: tl.constexpr):
    b = tl.program_id(0)
    if tl.load(stopped + b) != 0:
        return
    nodes = tl.load(num_nodes + b)
    last = tl.load(tokens + b * NODES + nodes - 1)
    token = (last * 5 + 3) % 128 + tl.where(last % 7 == 2, 128, 0)
    tl.store(tokens + b * NODES + nodes, token)
    tl.store(num_nodes + b, nodes + 1)
    tl.store(stopped + b, ((token % 5 == 1) | (nodes + 1 == NODES)).to(tl.int32))
    tl.store(num_drafted + b, tl.load(num_drafted + b) + 1)


@triton.jit
def _tail_kernel(root, tokens, num_nodes, path_len, bonus, done, NODES: tl.constexpr):
    b = tl.program_id(0)
    if tl.load(done + b) != 0:
        return
    nodes = tl.load(num_nodes + b)
    last = tl.load(tokens + b * NODES)
    length = 1
    for j in range(1, NODES):
        token = tl.load(tokens + b * NODES + j)
        accepted = (j == length) & (j < nodes) & (token == (last * 5 + 3) % 128)
        last = tl.where(accepted, token, last)
        length += accepted.to(tl.int32)
    following = (last * 5 + 3) % 128
    tl.store(path_len + b, length)
    tl.store(bonus + b, following)
    tl.store(root + b, following)


@triton.jit
def _tally_kernel(num_run):
    tl.store(num_run, tl.load(num_run) + 1)


@dataclass(frozen=True)
class Toy:
    """Buffers of a toy decoder; `num_run` counts the steps that were run, needed or not."""

    root: Tensor
    tokens: Tensor
    num_nodes: Tensor
    stopped: Tensor
    path_len: Tensor
    bonus: Tensor
    num_drafted: Tensor
    num_run: Tensor

    @classmethod
    def of(cls, roots: Sequence[int], num_steps: int) -> Toy:
        batch = len(roots)
        counts = [torch.zeros(batch, dtype=torch.int32) for _ in range(4)]
        return cls(
            root=torch.tensor(roots),
            tokens=torch.zeros(batch, num_steps + 1, dtype=torch.int64),
            num_nodes=torch.ones_like(counts[0]),
            stopped=counts[1],
            path_len=counts[2],
            bonus=torch.zeros(batch, dtype=torch.int64),
            num_drafted=counts[3],
            num_run=torch.zeros(1, dtype=torch.int32),
        )

    @property
    def nodes(self) -> int:
        return self.tokens.shape[1]

    def begin(self) -> None:
        grid = (len(self.root),)
        _begin_kernel[grid](self.root, self.tokens, self.stopped, self.nodes)

    def step(self, number: int) -> None:
        if number == 0:
            self.begin()
        _tally_kernel[(1,)](self.num_run)
        grid = (len(self.root),)
        _step_kernel[grid](self.tokens, self.num_nodes, self.stopped, self.num_drafted, self.nodes)

    def tail(self, done: Tensor) -> None:
        if self.nodes == 1:
            self.begin()
        _tail_kernel[(len(self.root),)](
            self.root,
            self.tokens,
            self.num_nodes,
            self.path_len,
            self.bonus,
            done,
            self.nodes,
        )


def greedy(root: int, max_tokens: int, eos_ids: Sequence[int] = ()) -> list[int]:
    """Tokens behind `root`, cut behind the first end and at the budget."""
    written: list[int] = []
    token = root
    while len(written) < max_tokens:
        token = (token * 5 + 3) % 128
        written.append(token)
        if token in eos_ids:
            break
    return written
