"""As `test_batches`, with drafters that are not Kangaroo's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kangaroo.config import DraftConfig
from kangaroo.draft import skipping
from kangaroo.draft.draft_model import ModelDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.lookup import LookupDrafter
from kangaroo.draft.skipping import SkippingDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.decode import Decoder
from kangaroo.engine.state import DecodeState
from kangaroo.models.adapter import BareExit
from tests.engines import poison
from tests.lossless.hash_target import CONFIG, HashModel, HashTarget, shallow_hashes
from tests.lossless.test_batches import DRAFTS, knows, storm
from tests.sampling.test_mutants import mutated

# What is left of each half of the layers hashes as all of it does.
DRAFTERS: dict[str, Callable[[Any, DraftConfig], Any]] = {
    "lookup": LookupDrafter,
    "bare exit": lambda target, config: KangarooDrafter(
        target, BareExit(CONFIG, target.weights.norm, 2), config
    ),
    "draft model": lambda target, config: ModelDrafter(target, config, HashModel()),  # type: ignore[arg-type]
    "skipping": lambda target, config: SkippingDrafter(target, config, {0, 3}),
}
MODELS = [name for name in DRAFTERS if name != "lookup"]


def decoder_of(name: str, draft: str) -> Decoder:
    """What is no one's to read is NaN whenever something is drafted."""
    target: Any = HashTarget()
    config = DraftConfig(2, **DRAFTS[draft])
    drafter = DRAFTERS[name](target, config)
    plain = drafter.draft

    def poisoned(state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        poison(state)
        trees: list[DraftTree] = plain(state, max_depths)
        return trees

    drafter.draft = poisoned
    return Decoder(target, drafter, config)


@pytest.mark.parametrize("capacity", [1, 4])
@pytest.mark.parametrize("name", DRAFTERS)
@pytest.mark.parametrize("draft", ["chain", "adaptive chain"])
def test_every_sequence_says_what_it_must(draft: str, name: str, capacity: int) -> None:
    result = storm(decoder_of(name, draft), capacity, num_sequences=4)
    assert result.is_right
    assert result.num_tokens > 20


def all_known(name: str, draft: str = "bold chain") -> bool:
    hashes = {"hashes": shallow_hashes} if name == "bare exit" else {}
    return knows(decoder_of(name, draft), num_new=15, **hashes)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("draft", ["bold chain", "chain"])
def test_a_drafter_in_a_batch_knows_what_it_should(draft: str, name: str) -> None:
    assert all_known(name, draft)


SAYS, CATCHES_UP = ModelDrafter.states, ModelDrafter._catch_up
# Drafter, name, function, what stands in it, what a mistake would put there.
MUTANTS: list[tuple[str, str, Callable[..., Any], str, str]] = [
    (
        "draft model",
        "reads a token twice",
        ModelDrafter.prefill,
        "committed[0] :",
        "committed[0]+1 :",
    ),
    ("draft model", "says it of the root", SAYS, "tokens[-1:]", "tokens[:1]"),
    ("draft model", "forgets the root", CATCHES_UP, "num_nodes=1", "num_nodes=0"),
    ("draft model", "is not behind", CATCHES_UP, "1 + max(state.lags)", "1"),
    ("draft model", "catches up with the first", CATCHES_UP, "h[b, len", "h[0, len"),
    ("draft model", "a slot too far back", CATCHES_UP, "root + 1 - width", "root - width"),
    ("skipping", "a slot too far", SkippingDrafter.states, "trees)) - 1", "trees))"),
    ("skipping", "skips too much", skipping.runs, "not in skipped", "== 2"),
    ("bare exit", "nodes are not counted", BareExit.step, "kv.num_nodes += h.shape[1]", "pass"),
]


@pytest.mark.parametrize(
    ("drafter", "function", "old", "new"),
    [pytest.param(name, *mutant, id=title) for name, title, *mutant in MUTANTS],
)
def test_mutants_are_killed(
    monkeypatch: pytest.MonkeyPatch, drafter: str, function: Callable[..., Any], old: str, new: str
) -> None:
    monkeypatch.setattr(function, "__code__", mutated(function, old, new))
    try:
        right = all_known(drafter)
    except (ValueError, IndexError, RuntimeError, AssertionError):
        right = False
    assert not right
