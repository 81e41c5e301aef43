"""How much rounds of the device copy, and what that may cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kangaroo.costs import RoundCosts
from kangaroo.draft.pace import ALLOWANCE, START
from kangaroo.engine.graphs import AHEAD
from kangaroo.engine.state import Request
from kangaroo.models.llama import Llama
from kangaroo_kernels.copy_draft import reference
from tests.engine.played import PlayedRounds
from tests.engine.test_copied_graphs import NUM_NEW, copier, decoders, knowing, prompt_of
from tests.engine.test_graphs import decode, model

__all__ = ["copier", "knowing", "model"]


@pytest.mark.parametrize(("row_cost", "copied"), [(0.05, True), (0.3, False)])
def test_copies_that_cannot_be_borne(knowing: Llama, row_cost: float, copied: bool) -> None:
    """A captured round verifies all rows that a copy may have; what drafting may lose holds."""
    costs = (0.1, row_cost)
    _, graphs = decoders(knowing, "paper", confidence=0.0, adaptive=True, costs=costs)
    assert graphs.pace is not None
    spent, book = [], graphs.pace.book

    def spy(requests: Any, *round_: int) -> None:
        spent.append(RoundCosts(*costs).of_round(1, *round_[:2]))
        book(requests, *round_)

    graphs.pace.book = spy  # type: ignore[method-assign]
    decode(graphs, Request(prompt_of(knowing, 64), NUM_NEW))
    assert sum(spent) <= (1 + ALLOWANCE) * NUM_NEW + START
    assert any(shape.copied > 0 for shape in graphs._captured) == copied


@pytest.mark.parametrize("draft", ["chain", "tree"])
@pytest.mark.parametrize("costs", [(0.2, 0.02), (0.2, 0.05), (0.2, 0.08), (0.25, 0.1)])
@pytest.mark.parametrize("lookup_depth", [15, 63])
def test_what_is_lost_at_any_time(
    copier: Llama,
    monkeypatch: pytest.MonkeyPatch,
    lookup_depth: int,
    costs: tuple[float, float],
    draft: str,
) -> None:
    """Nothing is right and nothing repeats itself, and rows are dear: a round that is launched
    before another is read may cost what one is allowed to.
    """
    monkeypatch.setattr(reference, "continuation", lambda *_: [])
    options = {"adaptive": True, "costs": costs, "lookup_depth": lookup_depth, "draft": draft}
    _, graphs = decoders(copier, "paper", confidence=0.0, **options)
    assert graphs.pace is not None
    spent, won, worst, book = 0.0, 0, 0.0, graphs.pace.book

    def spy(requests: Any, passes: int, num_nodes: int, num_new: int) -> None:
        nonlocal spent, won, worst
        spent, won = spent + RoundCosts(*costs).of_round(1, passes, num_nodes), won + num_new
        worst = max(worst, spent - (1 + ALLOWANCE) * won)
        book(requests, passes, num_nodes, num_new)

    graphs.pace.book = spy  # type: ignore[method-assign]
    decode(graphs, Request(prompt_of(copier, 64), NUM_NEW))
    assert 0 < worst <= START


@pytest.mark.parametrize("draft", ["chain", "tree"])
def test_rounds_that_copy_are_launched_ahead(knowing: Llama, draft: str) -> None:
    """One kind of rounds serves copies and drafts, and the host reads behind the next launch."""
    _, graphs = decoders(knowing, "deep_prefix", confidence=0.0, draft=draft)
    ours = decode(graphs, Request(prompt_of(knowing, 64), NUM_NEW))
    ((shape, rounds),) = graphs._captured.items()
    assert isinstance(rounds.runtime, PlayedRounds)
    assert (shape.ahead, shape.copied) == (AHEAD, graphs.config.lookup_depth)
    assert rounds.runtime.num_launched == len(ours)
    assert max(accepted for *_, accepted in ours) > 3


@pytest.mark.parametrize(
    ("options", "batch", "copied"),
    [
        ({}, 1, 15),
        ({}, 4, 15),
        ({}, 8, 7),
        ({}, 16, 6),
        ({"lookup_depth": 63}, 1, 63),
        ({"draft": "tree"}, 8, 15),
        ({"draft": "tree", "max_nodes": 4}, 1, 15),
        ({"draft": "tree", "max_nodes": 1}, 1, 15),
        ({"draft": "tree", "max_nodes": 64, "lookup_depth": 63}, 8, 63),
        ({"draft": "tree", "tree_widths": (3, 2, 1, 1)}, 8, 15),
    ],
)
def test_how_long_copies_may_be(
    copier: Llama, options: dict[str, Any], batch: int, copied: int
) -> None:
    """As long as they are on the host, but of many sequences no longer than rows are there."""
    _, graphs = decoders(copier, "paper", **options)
    state: Any = SimpleNamespace(requests=[Request([1], 1)] * batch)
    assert graphs._limits(state) == (graphs.config.depth, copied)
