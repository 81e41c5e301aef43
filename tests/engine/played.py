"""Rounds of the device, played on the host: the contract of csrc/include/kangaroo/round.h."""

from __future__ import annotations

from collections import deque

import torch

from kangaroo.engine.device_round import Outcome, Pieces


class PlayedRounds:
    """Runs the pieces where they are launched, and publishes what they have written.

    A step that is left out on the device is left out here; what it would have written holds what it
    held before.

    Attributes:
        num_steps, num_launched: steps and rounds that were run.
    """

    def __init__(self, pieces: Pieces):
        self.pieces = pieces
        self.done = torch.ones(pieces.shape.batch, dtype=torch.int32)
        self.left = [0] * pieces.shape.batch
        self._ring: deque[Outcome] = deque()
        self.num_steps = self.num_launched = 0

    @property
    def unread(self) -> int:
        return len(self._ring)

    def start(self, sequence: int, max_tokens: int) -> None:
        self.left[sequence], self.done[sequence] = max_tokens, max_tokens <= 0

    def launch(self) -> None:
        assert self.unread < self.pieces.shape.ahead
        before = self.num_steps
        if not self.done.all():
            self.num_launched += 1
            self.pieces.chain.stopped.copy_(self.done)
            self.pieces.chain.num_nodes.fill_(1)
            front = self.pieces.front
            if front:
                front.find()
            for number, step in enumerate(self.pieces.steps):
                if number == 0 and not front or not self.pieces.chain.stopped.all():
                    self.num_steps += 1
                    step()
            if front and front.enter and front.found.any():
                front.enter()
            self.pieces.tail(self.done)
        self._publish(self.num_steps - before)

    def wait(self) -> Outcome:
        return self._ring.popleft()

    def _publish(self, num_steps: int) -> None:
        chain, verdict = self.pieces.chain, self.pieces.verdict
        new: list[list[int]] = []
        for b, length in enumerate(verdict.path_len.tolist()):
            path = verdict.path[b, 1:length]
            tokens = [*chain.tokens[b, path].tolist(), int(verdict.bonus[b])]
            new.append([])
            for token in tokens if not self.done[b] else ():
                new[b].append(token)
                self.left[b] -= 1
                if self.left[b] <= 0 or token in self.pieces.shape.eos_ids:
                    self.done[b] = 1
                    break
        lengths = chain.num_nodes.tolist(), verdict.path_len.tolist()
        self._ring.append(Outcome(new, *lengths, num_steps))
