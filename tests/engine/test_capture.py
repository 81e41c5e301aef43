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
def test_garbage_goes_before_a_capture_and_not_in_it(enabled: bool) -> None:
    was_enabled = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        old = weakref.ref(Graph())
        with suppress(RuntimeError), no_collection():
            assert old() is None
            assert not gc.isenabled()
            raise RuntimeError("refused")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
