"""Captures: no memory is given back by the garbage collector meanwhile; where there are none, and
what is said of it.
"""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kangaroo.engine import capture
from kangaroo.engine.capture import CapturedRounds, captured_rounds, no_collection, uncaptured
from kangaroo.engine.device_round import Front, Pieces, Shape
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.native import C
from kangaroo_kernels.verify_tree import Verdict


class Graph:
    """Garbage that only the collector sees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_goes_in_a_capture(enabled: bool) -> None:
    was_enabled = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with suppress(RuntimeError), no_collection():
            old = weakref.ref(Graph())
            some = [[] for _ in range(10 * gc.get_threshold()[0])]
            assert old() is not None
            raise RuntimeError("refused")
        assert gc.isenabled() == enabled
        assert some
    finally:
        (gc.enable if was_enabled else gc.disable)()


@pytest.mark.skipif(not hasattr(C, "Round"), reason="the extension was built without CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="captures for real are in test_graphs_gpu.py")
@pytest.mark.parametrize("fronted", [False, True])
def test_no_rounds_without_a_gpu(fronted: bool) -> None:
    chain = DraftChain.of_roots(1, 4, 0.0, torch.device("cpu"))
    verdict = Verdict(torch.zeros_like(chain.tokens), chain.num_nodes, chain.tokens[:, 0].clone())
    front = Front(int, int, torch.zeros_like(chain.num_nodes)) if fronted else None
    pieces = Pieces([int], lambda done: None, chain, verdict, Shape(1, 3, (), 1), front)
    with pytest.raises(RuntimeError, match="round: cudaGetDevice"):
        CapturedRounds(pieces)


def test_where_the_host_runs_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert uncaptured(torch.device("cpu"), {"native"}) == (
        "CUDA graphs run on CUDA devices, not on cpu"
    )
    refused = uncaptured(cuda, {"triton", "reference", "library"})
    assert refused == "ops of library, reference read lengths on the host"
    monkeypatch.setattr(capture, "C", SimpleNamespace(Round=None))
    assert uncaptured(cuda, {"triton", "cuda"}) is None


def test_an_extension_without_cuda_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence would cost its user most of the speed."""
    monkeypatch.setattr(capture, "C", SimpleNamespace())
    kernels = SimpleNamespace(backends={"linear": "triton"})
    model: Any = SimpleNamespace(rope=SimpleNamespace(device=torch.device("cuda")), kernels=kernels)
    with pytest.warns(UserWarning, match="built without CUDA.*reinstall with nvcc"):
        assert captured_rounds(model) is None


class Recorder:
    """A round that notes which piece is captured."""

    done, unread = 0, 0

    def __init__(self, *_: Any):
        self.calls = list[str]()

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append(name + "".join(f" {each}" for each in args))


@pytest.mark.parametrize("enters", [None, False, True])
def test_pieces_in_their_order(enters: bool | None) -> None:
    """None: there is no front."""
    chain, recorder = DraftChain.of_roots(1, 3, 0.0, torch.device("cpu")), Recorder()
    verdict = Verdict(torch.zeros_like(chain.tokens), chain.num_nodes, chain.tokens[:, 0].clone())
    note = recorder.calls.append
    front = None
    if enters is not None:
        enter = partial(note, "ENTER") if enters else None
        front = Front(partial(note, "FIND"), enter, torch.zeros_like(chain.num_nodes))
    steps = [partial(note, f"STEP {n}") for n in range(2)]
    tail: Any = lambda done: note("TAIL")  # noqa: E731
    pieces = Pieces(steps, tail, chain, verdict, Shape(1, 2, (), 1), front)
    rounds = object.__new__(CapturedRounds)
    rounds._round, rounds._done = recorder, chain.num_nodes
    rounds._enqueue(pieces)
    before = ["begin_front", "FIND", "end_front"] if front else []
    behind = ["begin_found", "ENTER", "end_found"] if enters else []
    drafted = [x for n in range(2) for x in (f"begin_step {n}", f"STEP {n}", "end_step")]
    ended = ["begin_tail", "TAIL", "end_tail", "finish"]
    assert recorder.calls == [*before, *drafted, *behind, *ended]
