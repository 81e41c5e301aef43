"""Rounds as CUDA graphs: `_C.Round` around what the pieces of a round enqueue."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from kangaroo.engine.device_round import Outcome, Pieces
from kangaroo.models.llama import Llama
from kangaroo_kernels import Backend
from kangaroo_kernels.native import C

NOT_BUILT = (
    "the C++ extension was built without CUDA, so none is a CUDA graph (the same tokens, more "
    "slowly); reinstall with nvcc on the PATH"
)
# Of `_C.RoundMode`. On an H200 a step of 16 kernels that is left out costs 0.04 us, where steps
# side by side cost 4.3 and kernels that return early 19.7; one that is run 25.2 (26.8, 22.8).
MODE = "NESTED"


def captured_rounds(model: Llama) -> type[CapturedRounds] | None:
    """What runs rounds of `model` without the host; None where the host must run them."""
    refused = uncaptured(model.rope.device, set(model.kernels.backends.values()))
    if refused == NOT_BUILT:
        warnings.warn(f"the host runs every round: {refused}", stacklevel=2)
    return CapturedRounds if refused is None else None


def uncaptured(device: torch.device, backends: Collection[str]) -> str | None:
    """Why rounds by ops of these `backends` on `device` are not captured."""
    if device.type != "cuda":
        return f"CUDA graphs run on CUDA devices, not on {device.type}"
    if host := sorted(set(backends) - {Backend.TRITON.value, Backend.CUDA.value}):
        return f"ops of {', '.join(host)} read lengths on the host"
    return None if hasattr(C, "Round") else NOT_BUILT


class CapturedRounds:
    """Captures the pieces when it is made. Launches go to the stream that is current then.

    What it runs reads and writes memory of the DeviceRounds that has made it, and owns it; the
    pieces lead back there and are forgotten once captured, or all would wait for the garbage
    collector.

    Raises:
        RuntimeError: CUDA refuses the capture.
    """

    def __init__(self, pieces: Pieces):
        chain, verdict = pieces.chain, pieces.verdict
        batch, num_nodes = chain.tokens.shape
        outputs = (
            chain.tokens.data_ptr(),
            verdict.path.data_ptr(),
            verdict.path_len.data_ptr(),
            verdict.bonus.data_ptr(),
            chain.num_nodes.data_ptr(),
            pieces.front.found.data_ptr() if pieces.front else 0,
        )
        self._round = C.Round(
            getattr(C.RoundMode, MODE),
            (len(pieces.steps), pieces.shape.ahead, batch, num_nodes),
            chain.stopped.data_ptr(),
            outputs,
            (num_nodes, num_nodes),
            list(pieces.shape.eos_ids),
        )
        self._done = torch.as_tensor(_Int32s(self._round.done, batch), device=chain.tokens.device)
        self._pool = torch.cuda.MemPool()
        with no_collection():
            self._capture(pieces)

    @property
    def unread(self) -> int:
        """See Runtime."""
        unread: int = self._round.unread
        return unread

    def start(self, sequence: int, max_tokens: int) -> None:
        """See Runtime."""
        self._round.start(sequence, max_tokens, torch.cuda.current_stream().cuda_stream)

    def launch(self) -> None:
        """See Runtime."""
        self._round.launch(torch.cuda.current_stream().cuda_stream)

    def wait(self) -> Outcome:
        """See Runtime."""
        _, num_steps, tokens, _, num_nodes, path_len = self._round.wait()
        return Outcome(tokens, num_nodes, path_len, num_steps)

    def _capture(self, pieces: Pieces) -> None:
        """Everything runs once before, while all sequences are done: kernels are compiled and
        loaded, and the pool has the memory that capturing asks for.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.use_mem_pool(self._pool), torch.cuda.stream(stream):
            pieces.chain.stopped.fill_(1)
            if pieces.front:
                pieces.front.find()
            for step in pieces.steps:
                step()
            if pieces.front and pieces.front.enter:
                pieces.front.enter()
            pieces.tail(self._done)
            stream.synchronize()
            self._round.capture(stream.cuda_stream)
            try:
                self._enqueue(pieces)
            except BaseException:
                self._round.abort()
                raise
        torch.cuda.current_stream().wait_stream(stream)

    def _enqueue(self, pieces: Pieces) -> None:
        if pieces.front:
            self._round.begin_front()
            pieces.front.find()
            self._round.end_front()
        for number, step in enumerate(pieces.steps):
            self._round.begin_step(number)
            step()
            self._round.end_step()
        if pieces.front and pieces.front.enter:
            self._round.begin_found()
            pieces.front.enter()
            self._round.end_found()
        self._round.begin_tail()
        pieces.tail(self._done)
        self._round.end_tail()
        self._round.finish()


@contextmanager
def no_collection() -> Iterator[None]:
    """Garbage may hold the memory of other graphs, which cannot be given back during a capture."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Int32s:
    """Memory of the round, for torch to look at."""

    def __init__(self, address: int, size: int):
        self.__cuda_array_interface__: dict[str, Any] = {
            "data": (address, False),
            "shape": (size,),
            "typestr": "<i4",
            "version": 3,
        }
