"""A round writes the slots of its own nodes: not those of history, and none behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.draft.whole import chain_drafter
from kangaroo.engine.state import DecodeState
from kangaroo_kernels import testing
from tests.engines import (
    BACKENDS,
    SMALL,
    NoisyDrafter,
    ScriptedBranches,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
    num_live,
)
from tests.factories import make_checkpoint

CANARY = 12345.0
PROMPT_LEN, NUM_TOKENS = 50, 40  # over the end of a chunk of the caches
TREE = DraftConfig(1, confidence=0.0, draft="tree", draft_top_k=3)
CHAIN = DraftConfig(1, max_depth=5, confidence=0.1)


class Watch:
    """Stands in front of a drafter: at the start of every round it sees what the last one wrote."""

    def __init__(self, drafter: KangarooDrafter):
        self.draft, self.num_checks = drafter.draft, 0
        self.history: list[tuple[SlotCache, Tensor, int]] = []

    def __call__(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        self.check()
        for cache in state.caches:
            cache.rows[..., num_live(cache) :, :] = CANARY
        before = [cache.rows[..., : num_live(cache), :].clone() for cache in state.caches]
        root = num_live(state.deep_kv)
        (tree,) = self.draft(state, max_depths)
        ends = [root + len(tree)] * len(state.caches)
        self.history = list(zip(state.caches, before, ends, strict=True))
        return [tree]

    def check(self) -> None:
        for cache, before, end in self.history:
            testing.assert_same_bits(cache.rows[..., : before.shape[-2], :], before)
            assert (cache.rows[..., end:, :] == CANARY).all()
            self.num_checks += 1


@pytest.mark.parametrize("drafts", ["own chain", "chain", "own tree", "tree"])
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_round_writes_its_own_slots_alone(
    tmp_path: Path, backend: str, kind: AdapterKind, drafts: str
) -> None:
    """By drafts that are accepted in part, compacted trees among them, and by the adapter's own."""
    model = load(make_checkpoint(tmp_path, "qwen3", **SMALL), backend)
    prompt = make_prompt(model, PROMPT_LEN)
    plain, adapter = autoregressive(model, prompt, NUM_TOKENS), make_adapter(model, kind, 1)
    tokens = prompt + plain.tokens
    drafter = {
        "own chain": lambda: chain_drafter(model, adapter, CHAIN),
        "chain": lambda: NoisyDrafter(model, adapter, CHAIN, tokens),
        "own tree": lambda: BranchingDrafter(model, adapter, TREE),
        "tree": lambda: ScriptedBranches(model, adapter, TREE, tokens),
    }[drafts]()
    watch = Watch(drafter)
    drafter.draft = watch  # type: ignore[method-assign]
    run = decoder_of(drafter).run(prompt, NUM_TOKENS)
    with torch.inference_mode():
        watch.check()
    assert run.tokens == plain.tokens
    assert watch.num_checks == 3 * len(run.rounds)
