"""A chain in one call and a chain token by token: the same drafts, the same caches."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.draft.whole import WholeChainDrafter, chain_drafter
from kangaroo.engine.state import DecodeState
from kangaroo_kernels import UnsupportedError
from kangaroo_kernels.testing import assert_same_bits
from tests.engines import SMALL, decoder_of, load, make_adapter, make_prompt, num_live
from tests.factories import make_checkpoint

NUM_TOKENS, EXIT_LAYER = 40, 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(
        tmp_path_factory.mktemp("target"), "qwen3", **SMALL | {"num_hidden_layers": 3}
    )


def watch(drafter: KangarooDrafter) -> list[tuple[DraftTree, list[Tensor]]]:
    """Each draft, and all live rows behind it."""
    drafts, draft = [], drafter.draft

    def watched(state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        (tree,) = draft(state, max_depths)
        caches = (state.shallow_kv, state.adapter_kv)
        rows = [cache.rows[..., : num_live(cache), :].clone() for cache in caches]
        drafts.append((tree, [*rows, state.hidden(0, len(tree)).clone()]))
        return [tree]

    drafter.draft = watched  # type: ignore[method-assign]
    return drafts


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("confidence", [0.0, 0.02, 1.0])
def test_the_same_drafts(checkpoint: Path, kind: AdapterKind, confidence: float) -> None:
    try:
        model = load(checkpoint, "native")
    except UnsupportedError as refusal:
        pytest.skip(str(refusal))
    adapter, config = make_adapter(model, kind, EXIT_LAYER), DraftConfig(EXIT_LAYER, 4, confidence)
    fast, slow = chain_drafter(model, adapter, config), KangarooDrafter(model, adapter, config)
    assert isinstance(fast, WholeChainDrafter)
    prompt, seen = make_prompt(model, 9), [watch(fast), watch(slow)]
    runs = [decoder_of(drafter).run(prompt, NUM_TOKENS) for drafter in (fast, slow)]
    assert runs[0].tokens == runs[1].tokens
    for (tree, rows), (expected, expected_rows) in zip(*seen, strict=True):
        assert tree == expected
        for got, wanted in zip(rows, expected_rows, strict=True):
            assert_same_bits(got, wanted)


def test_kernels_without_such_a_call(checkpoint: Path) -> None:
    model = load(checkpoint, "reference")
    adapter = make_adapter(model, "paper", EXIT_LAYER)
    assert type(chain_drafter(model, adapter, DraftConfig(EXIT_LAYER))) is KangarooDrafter
    assert type(chain_drafter(model, None, DraftConfig(EXIT_LAYER, 0))) is KangarooDrafter
