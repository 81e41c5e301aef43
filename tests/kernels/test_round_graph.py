"""Rounds as CUDA graphs: every mode writes what greedy decoding writes, on a real device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch

from kangaroo.engine.graphs import MAX_EOS
from tests.kernels.toy_rounds import Toy, greedy

MODES = ("conditional", "nested", "early_return")
ROOTS = (10, 17, 24)


@pytest.fixture
def extension() -> Any:
    c = pytest.importorskip("kangaroo_kernels._C", reason="the extension is not built")
    if not hasattr(c, "Round"):
        pytest.skip("the extension was built without CUDA")
    return c


class Array:
    """Memory of the round, for torch to look at."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": (size,),
            "typestr": "<i4",
            "version": 3,
        }


class Decoder:
    """A toy, its round and its stream."""

    def __init__(self, c: Any, mode: str, num_steps: int, ahead: int, eos_ids: Sequence[int] = ()):
        self.toy = toy = Toy.of(ROOTS, num_steps)
        self.stream = torch.cuda.Stream()
        self.ahead, self.num_steps = ahead, num_steps
        sizes = (num_steps, ahead, len(ROOTS), toy.nodes)
        written = toy.path_len, toy.bonus, toy.num_nodes
        outputs = (toy.tokens.data_ptr(), 0, *(t.data_ptr() for t in written), 0)
        self.round = c.Round(
            getattr(c.RoundMode, mode.upper()),
            sizes,
            toy.stopped.data_ptr(),
            outputs,
            (toy.nodes, 0),
            list(eos_ids),
        )
        self.done = torch.as_tensor(Array(self.round.done, len(ROOTS)), device="cuda")
        assert self.done.data_ptr() == self.round.done
        self.warm_up()

    def warm_up(self) -> None:
        """Loads every kernel, then puts everything back."""
        toy = self.toy
        toy.begin()
        for number in range(self.num_steps):
            toy.step(number)
        toy.tail(self.done)
        toy.root.copy_(torch.tensor(ROOTS))
        toy.num_drafted.zero_()
        toy.num_run.zero_()
        torch.cuda.synchronize()

    def capture(self) -> None:
        steps = [partial(self.toy.step, number) for number in range(self.num_steps)]
        with torch.cuda.stream(self.stream):
            self.round.capture(self.stream.cuda_stream)
            for number, step in enumerate(steps):
                self.round.begin_step(number)
                step()
                self.round.end_step()
            self.round.begin_tail()
            self.toy.tail(self.done)
            self.round.end_tail()
            self.round.finish()

    def decode(self, budgets: Sequence[int]) -> tuple[list[list[int]], int]:
        """What every sequence writes, and the number of rounds."""
        handle = self.stream.cuda_stream
        for sequence, budget in enumerate(budgets):
            self.round.start(sequence, budget, handle)
        written: list[list[int]] = [[] for _ in budgets]
        num_rounds, done = 0, [False]
        while not all(done):
            while self.round.unread < self.ahead:
                self.round.launch(handle)
            _, _, tokens, done, *_ = self.round.wait()
            num_rounds += 1
            for row, new in zip(written, tokens, strict=True):
                row += new
        while self.round.unread:
            _, _, tokens, done, *_ = self.round.wait()
            assert all(done)
            assert not any(tokens)
        self.stream.synchronize()
        return written, num_rounds


def play(toy: Toy, budgets: Sequence[int]) -> list[list[int]]:
    """The contract of a round, step by step on the host."""
    done = torch.zeros(len(budgets), dtype=torch.int32)
    written: list[list[int]] = [[] for _ in budgets]
    while not done.all():
        toy.stopped.copy_(done)
        toy.num_nodes.fill_(1)
        for number in range(toy.nodes - 1):
            toy.step(number)
        toy.tail(done)
        for b, budget in enumerate(budgets):
            if not done[b]:
                accepted = toy.tokens[b, 1 : int(toy.path_len[b])].tolist()
                written[b] += [*accepted, int(toy.bonus[b])]
                done[b] = len(written[b]) >= budget
    return [row[:budget] for row, budget in zip(written, budgets, strict=True)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="plays with the interpreter")
@pytest.mark.parametrize("num_steps", [0, 3])
def test_the_toy_is_greedy(num_steps: int) -> None:
    budgets = (20, 9, 1)
    written = play(Toy.of(ROOTS, num_steps), budgets)
    assert written == [greedy(root, n) for root, n in zip(ROOTS, budgets, strict=True)]


@pytest.mark.gpu
@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize("num_steps", [0, 1, 3, 6])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_greedy(extension: Any, mode: str, num_steps: int, ahead: int) -> None:
    eos_ids = greedy(ROOTS[2], 30)[-MAX_EOS:]
    decoder = Decoder(extension, mode, num_steps, ahead, eos_ids)
    decoder.capture()
    budgets = (41, 1, 50)
    written, _ = decoder.decode(budgets)
    assert written == [greedy(root, n, eos_ids) for root, n in zip(ROOTS, budgets, strict=True)]


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_steps_that_stopped_are_not_run(extension: Any, mode: str) -> None:
    decoder = Decoder(extension, mode, num_steps=6, ahead=1)
    decoder.capture()
    _, num_rounds = decoder.decode((120, 0, 0))
    drafted = int(decoder.toy.num_drafted[0])
    captured = 6 * num_rounds
    assert 0 < drafted < captured
    assert int(decoder.toy.num_run) == (captured if mode == "early_return" else drafted)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_a_second_capture_serves_as_well(extension: Any, mode: str) -> None:
    decoder = Decoder(extension, mode, num_steps=3, ahead=2)
    for _ in range(3):
        decoder.capture()
        decoder.toy.root.copy_(torch.tensor(ROOTS))
        torch.cuda.synchronize()
        written, _ = decoder.decode((30, 20, 10))
        assert written == [greedy(r, n) for r, n in zip(ROOTS, (30, 20, 10), strict=True)]
    assert decoder.round.instantiations >= 1


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_a_broken_capture_is_refused_and_can_be_repeated(extension: Any, mode: str) -> None:
    decoder = Decoder(extension, mode, num_steps=3, ahead=1)
    with torch.cuda.stream(decoder.stream):
        decoder.round.capture(decoder.stream.cuda_stream)
        decoder.round.begin_step(0)
        with pytest.raises(Exception, match="captur"):
            decoder.stream.synchronize()
        with pytest.raises(RuntimeError, match="previous error during capture"):
            decoder.round.end_step()
    with pytest.raises(ValueError, match="outside a capture"):
        decoder.round.end_step()
    decoder.capture()
    written, _ = decoder.decode((8, 8, 8))
    assert written == [greedy(root, 8) for root in ROOTS]


@pytest.mark.gpu
def test_the_default_stream_is_refused(extension: Any) -> None:
    decoder = Decoder(extension, "conditional", num_steps=1, ahead=1)
    with pytest.raises(ValueError, match="default stream"):
        decoder.round.capture(0)
