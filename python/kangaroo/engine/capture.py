"""Rounds as CUDA graphs: `_C.Round` around what the pieces of a round enqueue."""

from __future__ import annotations

from typing import Any

import torch

from kangaroo.engine.device_round import Outcome, Pieces
from kangaroo.models.llama import Llama
from kangaroo_kernels import Backend
from kangaroo_kernels.native import C

MODE = "CONDITIONAL"  # of `_C.RoundMode`; which of them is the fastest is not yet measured


def captured_rounds(model: Llama) -> type[CapturedRounds] | None:
    """What runs rounds of `model` without the host; None where the host must run them: on a CPU,
    without the extension that has them, and with ops that read lengths on the host.
    """
    launched = set(model.kernels.backends.values()) <= {Backend.TRITON.value, Backend.CUDA.value}
    there = model.rope.is_cuda and hasattr(C, "Round")
    return CapturedRounds if there and launched else None


class CapturedRounds:
    """Captures the pieces when it is made. Launches go to the stream that is current then.

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
        )
        self.pieces = pieces  # what the graph reads and writes lives as long as it
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
        self._capture()

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

    def _capture(self) -> None:
        """Everything runs once before, while all sequences are done: kernels are compiled and
        loaded, and the pool has the memory that capturing asks for.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.use_mem_pool(self._pool), torch.cuda.stream(stream):
            self.pieces.chain.stopped.fill_(1)
            for step in self.pieces.steps:
                step()
            self.pieces.tail(self._done)
            stream.synchronize()
            self._round.capture(stream.cuda_stream)
            try:
                self._enqueue()
            except BaseException:
                self._round.abort()
                raise
        torch.cuda.current_stream().wait_stream(stream)

    def _enqueue(self) -> None:
        for number, step in enumerate(self.pieces.steps):
            self._round.begin_step(number)
            step()
            self._round.end_step()
        self._round.begin_tail()
        self.pieces.tail(self._done)
        self._round.end_tail()
        self._round.finish()


class _Int32s:
    """Memory of the round, for torch to look at."""

    def __init__(self, address: int, size: int):
        self.__cuda_array_interface__: dict[str, Any] = {
            "data": (address, False),
            "shape": (size,),
            "typestr": "<i4",
            "version": 3,
        }
