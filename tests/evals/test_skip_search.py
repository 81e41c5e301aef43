"""The search for layers that may be skipped."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import pytest

from kangaroo.config import DraftConfig
from kangaroo.evals.skip_search import neighbours, search_skips, try_skips
from kangaroo.models.llama import Llama
from tests.engines import SMALL, load, make_prompt
from tests.factories import make_checkpoint

CONFIG, NUM_NEW = DraftConfig(1, 3, 0.1), 8
IDLE = {1, 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    """Of four layers, two of which do nothing."""
    path: Path = tmp_path_factory.mktemp("target")
    model = load(make_checkpoint(path, "llama", **(SMALL | {"num_hidden_layers": 4})), "native")
    for layer in IDLE:
        model.weights.layers[layer].o.zero_()
        model.weights.layers[layer].down.zero_()
    return model


@pytest.fixture(scope="module")
def prompts(model: Llama) -> list[list[int]]:
    return [make_prompt(model, 20, seed) for seed in range(2)]


def test_what_does_nothing_is_skipped_for_nothing(model: Llama, prompts: list[list[int]]) -> None:
    """All drafts are right: a round of three of them brings four tokens and costs half three times,
    and a row each.
    """
    trial = try_skips(model, DraftConfig(1, 3, 0.0), frozenset(IDLE), prompts, NUM_NEW)
    assert (trial.compression_ratio, trial.drafts_per_round) == (4.0, 3.0)
    head = model.weights.lm_head.numel()
    w = model.weights.layers[0]
    layer = sum(x.numel() for x in (w.qkv, w.o, w.gate_up, w.down))
    share = (2 * layer + head) / (4 * layer + head)
    assert trial.speedup == pytest.approx(4 / (1 + 3 * share + 3 * 0.08))


def test_the_best_of_all_is_found(model: Llama, prompts: list[list[int]]) -> None:
    """Where there are trials enough for a few steps; the same for a seed, and no trial twice."""
    sets = [frozenset(some) for n in range(4) for some in combinations(range(4), n)]
    every = [try_skips(model, CONFIG, some, prompts, NUM_NEW) for some in sets]
    found = search_skips(model, CONFIG, prompts, NUM_NEW, num_trials=12)
    assert found[0] == max(every, key=lambda trial: trial.speedup)
    assert found[0].skipped >= IDLE
    assert len({trial.skipped for trial in found}) == len(found) <= 12
    assert [trial.speedup for trial in found] == sorted((t.speedup for t in found), reverse=True)
    assert found == search_skips(model, CONFIG, prompts, NUM_NEW, num_trials=12)
    assert len(search_skips(model, CONFIG, prompts, NUM_NEW, num_trials=1)) == 1


def test_a_step_takes_a_layer_in_or_leaves_one_out() -> None:
    found = list(neighbours(frozenset({1}), range(3), random.Random(0)))
    assert len(found) == 3
    assert set(found) == {frozenset(), frozenset({0, 1}), frozenset({1, 2})}


def test_refusals(model: Llama, prompts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="^prompts: expected at least one, got none$"):
        search_skips(model, CONFIG, [], NUM_NEW, 3)
    with pytest.raises(ValueError, match="^num_trials: expected at least 1, got 0$"):
        search_skips(model, CONFIG, prompts, NUM_NEW, 0)
