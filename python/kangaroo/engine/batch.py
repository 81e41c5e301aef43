"""Continuous batching: sequences join and leave between rounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import perf_counter

import torch

from kangaroo.engine.decode import Decoder, Round, check_context
from kangaroo.engine.state import DecodeState, PastKeyValues, Request, SequenceError
from kangaroo.engine.stats import Rounds


class Batch:
    """Decodes up to `capacity` sequences together; those behind wait, the first first.

    A sequence has its row, and all the slots it may need, from when it joins to when it leaves, so
    no round can run out of them. Its tokens and the bits of its logits are those of decoding it
    alone.

    Args:
        capacity: sequences in a round at most.
        max_len: tokens of a sequence at most, its prompt included.

    Attributes:
        running: numbers of the sequences that have a row, in the order of the rows.
    """

    def __init__(self, decoder: Decoder, capacity: int, max_len: int):
        for name, value in (("capacity", capacity), ("max_len", max_len)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        self.decoder, self.capacity, self.max_len = decoder, capacity, max_len
        with torch.inference_mode():
            self._state = decoder.new_state(capacity, max_len)
        self.running: list[int] = []
        self._waiting: deque[tuple[int, Request, DecodeState | None]] = deque()
        self._next_number = 0

    def __len__(self) -> int:
        """Sequences that have not ended."""
        return len(self.running) + len(self._waiting)

    def add(self, request: Request, prefilled: DecodeState | None = None) -> int:
        """Line up a sequence; it joins when a row is free.

        Args:
            prefilled: one sequence with the same tokens, by the same decoder; it is read when the
                request joins, and its own request is not touched.

        Returns:
            the number by which the batch calls it.

        Raises:
            ValueError, UnsupportedError: as :meth:`Decoder.generate`, or longer than `max_len`, or
                it is in the batch already.
        """
        if any(request is each for each in self._requests()):
            raise ValueError("request: expected one that is not in the batch, got one that is")
        check_context(self.decoder.model.config, request)
        if (longest := len(request.tokens) + request.num_left) > self.max_len:
            raise ValueError(f"max_len: expected at least {longest}, got {self.max_len}")
        number, self._next_number = self._next_number, self._next_number + 1
        if request.num_left > 0:
            self._waiting.append((number, request, prefilled))
        return number

    @torch.inference_mode()
    def step(self) -> dict[int, Round]:
        """One round of every sequence that has a row; those that end with it leave.

        What raises in a sampler or a criterion leaves every sequence as it was before the round.

        Raises:
            SequenceError: a sequence has no next token; without it the others can go on.
        """
        while self._waiting and len(self.running) < self.capacity:
            number, request, prefilled = self._waiting[0]
            self._state.join(request, prefilled or self.decoder.prefill(request))
            self.running.append(number)
            self._waiting.popleft()
        if not self.running:
            return {}
        numbers = list(self.running)
        try:
            rounds = dict(zip(numbers, self.decoder.round(self._state), strict=True))
        except SequenceError as error:
            number = numbers[error.number]
            raise SequenceError(f"sequence {number}: {error}", number) from error
        for row in reversed(range(len(numbers))):
            if self._state.requests[row].num_left == 0:
                self._leave(row)
        return rounds

    @torch.inference_mode()
    def cancel(self, number: int) -> Request:
        """End a sequence between two rounds; the request keeps the tokens that it has.

        Raises:
            ValueError: there is no such sequence, or it has ended.
        """
        for place, (waiting, request, _) in enumerate(self._waiting):
            if waiting == number:
                del self._waiting[place]
                return request
        if number not in self.running:
            raise ValueError(f"number: expected a sequence that has not ended, got {number}")
        return self._leave(self.running.index(number))

    @torch.inference_mode()
    def preempt(self, number: int) -> None:
        """Take a sequence's row between two rounds: it waits behind all others, with a copy of its
        keys and values, and goes on where it was.

        Raises:
            ValueError: there is no such sequence in a row.
        """
        if number not in self.running:
            raise ValueError(f"number: expected a sequence that has a row, got {number}")
        row = self.running.index(number)
        request = self._state.requests[row]
        aside = self.decoder.new_state(1, len(request.tokens) + request.num_left)
        aside.join(request, self._state, row)
        self._leave(row)
        self._waiting.append((number, request, aside))

    def _requests(self) -> list[Request]:
        """Of all that have not ended."""
        return [*self._state.requests, *(request for _, request, _ in self._waiting)]

    def _leave(self, row: int) -> Request:
        self.running[row] = self.running[-1]
        self.running.pop()
        return self._state.leave(row)


@torch.inference_mode()
def decode_together(
    decoder: Decoder,
    requests: Sequence[Request],
    num_copies: int = 1,
    past: PastKeyValues | None = None,
) -> list[Rounds]:
    """Decode all `requests` to their ends; each `num_copies` in a row have the same prompt, which
    is prefilled once. `past` saves prefill of any.
    """
    started = perf_counter()
    max_len = max(len(request.tokens) + request.num_left for request in requests)
    batch, prefilled = Batch(decoder, len(requests), max_len), None
    for n, request in enumerate(requests):
        if n % num_copies == 0 and (num_copies > 1 or past is not None):
            prefilled = decoder.prefill(request, past)
        batch.add(request, prefilled)
    done: list[list[Round]] = [[] for _ in requests]
    while len(batch):
        for number, latest in batch.step().items():
            done[number].append(latest)
    decoding_s = sum(sum(each.seconds) for rounds in done for each in rounds)
    prefill_s = max(0.0, perf_counter() - started - decoding_s) / len(requests)
    return [Rounds(done=rounds, prefill_s=prefill_s) for rounds in done]
