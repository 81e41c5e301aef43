"""Draft trees over a target that notices every row, slot and position that is not as it should be.

Tokens prove the target's caches, accepted lengths the adapter's: both are told in advance, without
a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.growth import growth_of
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState
from tests.engines import BACKENDS, decoder_of, num_live, poison
from tests.lossless.hash_target import HashAdapter, HashTarget, continuation, deep_hashes, ranking

NUM_TOKENS = 80
PROMPT = [5, 3, 8, 1, 13]
TREES: dict[str, dict[str, Any]] = {
    "of the paper": {},
    "bold": {"confidence": 0.0},
    "hesitant": {"confidence": 0.7, "draft_top_k": 4},
    "narrow": {"draft_top_k": 2, "confidence": 0.0},
    "deep": {"max_depth": 20, "draft_top_k": 3, "max_nodes": 40, "confidence": 0.0},
    "flat": {"max_depth": 1},
    "largest": {"max_nodes": 64, "draft_top_k": 4, "confidence": 0.0},
    "smallest": {"max_nodes": 2},
    "root alone": {"max_nodes": 1},
    "static": {"tree_widths": (3, 2, 1)},
    "static, largest": {"tree_widths": (3, 4, 4)},
}


class PoisoningDrafter(BranchingDrafter):
    """Leaves NaN in every slot that no one has a right to read."""

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        poison(state)
        return super().draft(state, max_depths)


def config_of(**options: Any) -> DraftConfig:
    return DraftConfig(**({"exit_layer": 2, "confidence": 0.4, "draft": "tree"} | options))


EXPECTED = continuation(PROMPT, NUM_TOKENS)


def predicted(
    config: DraftConfig,
    prompt: list[int] = PROMPT,
    num_tokens: int = NUM_TOKENS,
    hashes: Callable[[list[int]], list[int]] = deep_hashes,
    copied: Callable[[list[int], int], list[int]] = lambda tokens, count: [],
) -> Iterator[tuple[int, int]]:
    """Drafted and accepted tokens of every round, by `hashes` of what the drafter has seen; where
    up to `count` tokens are `copied` behind others, those are the draft.
    """
    tokens, whole = list(prompt), prompt + continuation(prompt, num_tokens)
    k = max(config.tree_widths, default=config.draft_top_k)
    while len(tokens) < len(whole):
        tree, room = DraftTree.root(tokens[-1]), len(whole) - len(tokens) - 1
        copy = copied(tokens, min(config.lookup_depth, room))
        paths, start = [tokens], 0
        for token in copy:
            tree.add(token, len(tree) - 1)
            paths.append([*paths[-1], token])
        growth = growth_of(tree, config, min(config.depth, room))
        while growth.open and not copy:
            newest = paths[start:]
            start = len(tree)
            growth.extend([ranking(hashes(path)[-1], k) for path in newest])
            for node in range(start, len(tree)):
                paths.append([*paths[tree.parents[node]], tree.tokens[node]])
        accepted = max(len(path) for path in paths if path == whole[: len(path)]) - len(tokens)
        yield len(tree) - 1, accepted
        tokens = whole[: len(tokens) + accepted + 1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("name", TREES)
def test_tokens_and_accepted_lengths(name: str, kind: AdapterKind, backend: str) -> None:
    config = config_of(**TREES[name])
    drafter = PoisoningDrafter(HashTarget(backend), HashAdapter(kind), config)
    run = decoder_of(drafter).run(PROMPT, NUM_TOKENS)
    assert run.tokens == EXPECTED
    rounds = [(round_.num_drafted, round_.num_accepted) for round_ in run.rounds]
    assert rounds == list(predicted(config))
    if config.depth > 1 and config.max_nodes > 2:
        assert max(accepted for _, accepted in rounds) > 1
        assert min(accepted for _, accepted in rounds) == 0


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_chains(kind: AdapterKind) -> None:
    """A chain is the tree with one token behind a node: the same rounds, by other code."""
    target, adapter = HashTarget(), HashAdapter(kind)
    config = config_of(draft_top_k=1, max_nodes=7)
    chain = decoder_of(KangarooDrafter(target, adapter, config)).run(PROMPT, NUM_TOKENS)
    tree = decoder_of(BranchingDrafter(target, adapter, config)).run(PROMPT, NUM_TOKENS)
    assert chain.tokens == tree.tokens == EXPECTED
    for a, b in zip(chain.rounds, tree.rounds, strict=True):
        assert (a.num_drafted, a.num_accepted) == (b.num_drafted, b.num_accepted)


@pytest.mark.parametrize("num_tokens", range(1, 25))
def test_exactly_as_many_tokens_as_asked_for(num_tokens: int) -> None:
    drafter = PoisoningDrafter(HashTarget(), HashAdapter("paper"), config_of(confidence=0.0))
    run = decoder_of(drafter).run(PROMPT, num_tokens)
    assert run.tokens == EXPECTED[:num_tokens]


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("offset", range(20))
def test_an_end_of_sequence_token_inside_a_path(kind: AdapterKind, offset: int) -> None:
    """Nothing follows it, and the caches end where the tokens do."""
    tokens = EXPECTED
    end = tokens.index(tokens[offset])
    drafter = PoisoningDrafter(HashTarget(), HashAdapter(kind), config_of(confidence=0.0))
    run = decoder_of(drafter).run(PROMPT, NUM_TOKENS, {tokens[offset]})
    assert run.tokens == tokens[: end + 1]
    state = run.state
    root = state.prefix_lens[0]
    for cache in (state.shallow_kv, state.deep_kv):
        assert (cache.slots.committed, cache.num_nodes) == ([root], 0)
    assert state.adapter_kv.num_nodes == 0
    assert num_live(state.adapter_kv) <= root
