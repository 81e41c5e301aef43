"""During a capture no memory is given back by the garbage collector."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress

import pytest

from kangaroo.engine.capture import no_collection


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
