"""Drafters that are not Kangaroo's: what they read, what they remember, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kangaroo.config import DraftConfig
from kangaroo.costs import CPU_ROW_COST, RoundCosts
from kangaroo.draft.draft_model import ModelDrafter
from kangaroo.draft.lookup import LookupDrafter
from kangaroo.draft.pace import Pace
from kangaroo.draft.skipping import SkippingDrafter, runs
from kangaroo.draft.threshold import Threshold
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import Request
from kangaroo.models.llama import Llama
from kangaroo_kernels import UnsupportedError
from tests.engines import OTHERS, SMALL, load, shortened
from tests.factories import make_checkpoint

CONFIG = DraftConfig(1, max_depth=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    overrides = SMALL | {"num_hidden_layers": 4}
    return load(make_checkpoint(tmp_path_factory.mktemp("target"), "llama", **overrides))


def read_of(model: Llama, num_layers: int) -> int:
    """Counted from the tensors themselves."""
    layers = model.weights.layers[:num_layers]
    parts = [w.numel() for x in layers for w in (x.qkv, x.o, x.gate_up, x.down)]
    return sum(parts) + model.weights.lm_head.numel()


def test_what_a_step_reads(model: Llama) -> None:
    assert LookupDrafter(model, CONFIG).step_parameters == 0
    assert SkippingDrafter(model, CONFIG, {1, 2, 3}).step_parameters == read_of(model, 1)
    assert ModelDrafter(model, CONFIG, shortened(model, 2)).step_parameters == read_of(model, 2)
    costs = SkippingDrafter(model, CONFIG, {3}).costs()
    assert costs == RoundCosts(read_of(model, 3) / read_of(model, 4), CPU_ROW_COST)
    measured = replace(CONFIG, adaptive=True, costs=(0.5, 0.1))
    assert SkippingDrafter(model, measured, {3}).costs() == RoundCosts(0.5, 0.1)


def test_lookup_that_costs_nothing_is_drafted_deep(model: Llama) -> None:
    """Adaptive drafting knows that only rows are paid for."""
    config = DraftConfig(1, max_depth=10, adaptive=True)
    asked = [Request([1], 5)]
    lookup, skipping = LookupDrafter(model, config), SkippingDrafter(model, config, {1})
    assert Pace(config, lookup.costs()).depth(asked) > Pace(config, skipping.costs()).depth(asked)


@pytest.mark.parametrize("exit_layer", [1, 3, 5])
def test_runs_of_layers(exit_layer: int) -> None:
    """All that are left, once each and in order, cut where the caches are."""
    for number in range(2**6 - 1):
        skipped = {layer for layer in range(6) if number >> layer & 1}
        found = runs(6, exit_layer, skipped)
        left = [layer for start, stop in found for layer in range(start, stop)]
        assert left == [layer for layer in range(6) if layer not in skipped]
        assert not any(start < exit_layer < stop for start, stop in found)
        if not skipped:
            assert found == [(0, exit_layer), (exit_layer, 6)]


def settled(threshold: Threshold, request: Request, drafts: list[int], new: list[int]) -> float:
    """The confidence behind a round that drafted `drafts` and brought `new`."""
    config = DraftConfig(1, max_depth=3, confidence=0.6)
    threshold.now(request, config)
    threshold.drafted(request, DraftTree.chain([request.tokens[-1], *drafts]), config)
    request.tokens += new
    return threshold.now(request, config)


def test_a_threshold_by_hand() -> None:
    """Published constants: the rate halves its distance, the threshold moves by a tenth of 0.01."""
    threshold, request = Threshold(), Request([7], 99)
    assert settled(threshold, request, [1, 2], [1, 2, 9]) == pytest.approx(0.601)  # rate 0.5
    assert settled(threshold, request, [1, 2], [1, 2, 9]) == pytest.approx(0.602)  # 0.75
    assert settled(threshold, request, [], [4]) == pytest.approx(0.602)  # nothing was drafted
    assert settled(threshold, request, [1], [1, 9]) == pytest.approx(0.603)  # 0.875
    assert settled(threshold, request, [1], [1]) == pytest.approx(0.602)  # 0.9375; the end
    assert settled(threshold, request, [1, 2, 3], [1, 2, 3, 9]) == pytest.approx(0.602)  # longest
    assert settled(threshold, request, [1, 2], [1, 3]) == pytest.approx(0.603)  # half of it wrong
    assert settled(threshold, request, [1, 2], [5]) == pytest.approx(0.604)


def test_a_round_that_has_failed_teaches_nothing() -> None:
    threshold, request = Threshold(), Request([7], 99)
    assert settled(threshold, request, [1, 2], []) == 0.6


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "bare exit"])
def test_trees_are_refused(model: Llama, name: str) -> None:
    with pytest.raises(ValueError, match=r"^draft: \w+Drafter drafts chains alone, got 'tree'$"):
        OTHERS[name](model, DraftConfig(1, draft="tree"))


def test_what_cannot_draft_for_a_target(model: Llama) -> None:
    def small(**fields: Any) -> ModelDrafter:
        cut = shortened(model, 1)
        cut.config = replace(cut.config, **fields)
        return ModelDrafter(model, CONFIG, cut)

    with pytest.raises(ValueError, match="^draft_model: expected the target's 61 tokens, got 60$"):
        small(vocab_size=60)
    message = "^draft_model: expected a context of at least 41 tokens, got 40$"
    with pytest.raises(ValueError, match=message):
        small(max_seq_len=40).new_cache(1, 41)
    with pytest.raises(UnsupportedError, match="^draft_model: sliding-window .* window of 40$"):
        small(sliding_window=40).new_cache(1, 41)
    assert small(max_seq_len=40, sliding_window=40).new_cache(2, 40).capacity == 2


@pytest.mark.parametrize("skipped", [{4}, {-1}, {0, 1, 2, 3}])
def test_layers_that_cannot_be_skipped(model: Llama, skipped: set[int]) -> None:
    message = r"^skipped: expected some of the layers 0 to 3, but not all, got \["
    with pytest.raises(ValueError, match=message):
        SkippingDrafter(model, CONFIG, skipped)


def test_an_impossible_ngram(model: Llama) -> None:
    with pytest.raises(ValueError, match="^max_matching_ngram_size: expected at least 1, got 0$"):
        LookupDrafter(model, CONFIG, 0)
