"""Kangaroo's drafter leaves every cache where the decode loop expects it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.pace import Pace
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.state import DecodeState, Request
from kangaroo.models.llama import Llama
from tests.engines import (
    SMALL,
    NoisyDrafter,
    PerfectDrafter,
    WrongDrafter,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
    num_live,
    request_of,
)
from tests.factories import make_checkpoint

NUM_TOKENS = 40
EXIT_LAYER = 2
CONFIG = DraftConfig(EXIT_LAYER, max_depth=4, confidence=0.1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    overrides = SMALL | {"num_hidden_layers": 3}
    return load(make_checkpoint(tmp_path_factory.mktemp("target"), "qwen3", **overrides))


def lengths(state: DecodeState) -> tuple[int, int]:
    """Live slots of the shallow and deep caches."""
    return num_live(state.shallow_kv), num_live(state.deep_kv)


class CheckedDrafter(KangarooDrafter):
    """Checks the caches before and after all that it is asked to do."""

    live = 0  # rows of the adapter

    def prefill(self, state: DecodeState, h: Tensor, h_deep: Tensor) -> None:
        super().prefill(state, h, h_deep)
        self.live = num_live(state.adapter_kv)
        assert (self.live, self.live) == lengths(state)

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        """Every node has its shallow rows and exit state, all but the leaf their adapter row."""
        (prefix_len,), (max_depth,) = state.prefix_lens, max_depths
        assert lengths(state) == (prefix_len, prefix_len)
        assert state.adapter_kv.slots.committed == [min(prefix_len, self.live)]
        self.log += state.lags
        (tree,) = super().draft(state, max_depths)
        assert tree.tokens[0] == state.requests[0].tokens[-1]
        assert tree.parents == list(range(-1, len(tree) - 1))
        assert 0 < len(tree) <= max_depth + 1
        assert lengths(state) == (prefix_len + len(tree), prefix_len)
        self.live = num_live(state.adapter_kv)
        if len(tree) > 1:  # else the root is still to come, unless a slot before it was
            assert self.live == prefix_len + len(tree) - 1
        return [tree]

    def verified(
        self,
        state: DecodeState,
        trees: list[DraftTree],
        h_deep: Tensor,
        successors: list[list[int]],
    ) -> None:
        """`deep_prefix` has a row of every verified slot, `paper` of those that it had."""
        super().verified(state, trees, h_deep, successors)
        if self.adapter.config.kind == "deep_prefix":
            self.live = num_live(state.shallow_kv)
        assert num_live(state.adapter_kv) == self.live
        assert state.adapter_kv.slots.committed[0] <= state.prefix_lens[0]


class CheckedPerfect(CheckedDrafter, PerfectDrafter):
    pass


class CheckedNoisy(CheckedDrafter, NoisyDrafter):
    pass


class CheckedWrong(CheckedDrafter, WrongDrafter):
    pass


@pytest.mark.parametrize("drafter", [CheckedPerfect, CheckedNoisy, CheckedWrong])
@pytest.mark.parametrize("prompt_len", [1, 2, 30])
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_lengths_through_every_round(
    model: Llama, kind: AdapterKind, prompt_len: int, drafter: type[CheckedDrafter]
) -> None:
    """The `paper` adapter is a slot behind after just those rounds that accepted all drafts."""
    prompt = make_prompt(model, prompt_len)
    tokens = prompt + autoregressive(model, prompt, NUM_TOKENS).tokens
    checked = drafter(model, make_adapter(model, kind, EXIT_LAYER), CONFIG, tokens)
    checked.log = []
    run = decoder_of(checked).run(prompt, NUM_TOKENS)
    full = [r.num_drafted == r.num_accepted > 0 for r in run.rounds]
    assert checked.log[1:] == [int(all_kept and kind == "paper") for all_kept in full[:-1]]
    assert any(full[:-1]) == (drafter is not CheckedWrong)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_a_cache_has_the_adapters_geometry(model: Llama, kind: AdapterKind) -> None:
    config = make_adapter(model, kind, EXIT_LAYER).config
    cache = KangarooDrafter(model, make_adapter(model, kind, EXIT_LAYER), CONFIG).new_cache(3, 60)
    assert cache.rows.shape == (2, 3, config.num_kv_heads, 128, config.head_dim)
    assert cache.rows.dtype == model.weights.norm.dtype


def test_without_an_adapter(model: Llama) -> None:
    """No rows, no drafts; but the root's shallow work is done, for verification starts from it."""
    drafter = KangarooDrafter(model, None, CONFIG)
    assert drafter.new_cache(1, 100).rows.numel() == 0
    state = decoder_of(drafter).prefill(request_of([1, 2, 3], 10))
    (tree,) = drafter.draft(state, [4])
    assert (tree.tokens, lengths(state)) == ([3], (3, 2))


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_a_draft_depends_on_the_tokens_alone(model: Llama, kind: AdapterKind) -> None:
    """Whatever was drafted and rejected before, it is what a fresh prefill of the tokens drafts."""
    drafter = KangarooDrafter(model, make_adapter(model, kind, EXIT_LAYER), CONFIG)
    decoder, prompt = decoder_of(drafter), make_prompt(model, 20)
    tokens, num_left = list(prompt), NUM_TOKENS
    for round_ in decoder.generate(request_of(prompt, NUM_TOKENS)):
        with torch.inference_mode():
            state = decoder.prefill(request_of(tokens, NUM_TOKENS))
            fresh = drafter.draft(state, [CONFIG.max_depth])[0].tokens[1:]
        assert round_.num_drafted == min(len(fresh), num_left - 1)
        assert round_.tokens[:-1] == fresh[: round_.num_accepted]
        tokens += round_.tokens
        num_left -= len(round_.tokens)


class OneInThree(Pace):
    """Drafts in every third round."""

    def __init__(self) -> None:
        self.num_rounds = 0

    def depth(self, requests: Sequence[Request]) -> int:
        self.num_rounds += 1
        return CONFIG.max_depth * (self.num_rounds % 3 == 0)

    def book(
        self, requests: Sequence[Request], num_passes: int, num_nodes: int, num_new: int
    ) -> None:
        pass


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_a_draft_behind_rounds_without_any(model: Llama, kind: AdapterKind) -> None:
    """Of sequences that join one by one, some of whose adapters are a slot behind: what a fresh
    prefill would draft.
    """
    drafter = KangarooDrafter(model, make_adapter(model, kind, EXIT_LAYER), CONFIG)
    decoder, lags = decoder_of(drafter), set()
    decoder.pace = OneInThree()
    with torch.inference_mode():
        state = decoder.new_state(4, 100)
        for step in range(3 * 7):
            if step < 4:
                request = request_of(make_prompt(model, 9 + step, seed=step), NUM_TOKENS)
                state.join(request, decoder.prefill(request))
            lags.add(tuple(state.lags))
            alone = [decoder.prefill(request_of(r.tokens, NUM_TOKENS)) for r in state.requests]
            rounds = decoder.round(state)
            for own, round_ in zip(alone, rounds, strict=True):
                fresh = drafter.draft(own, [CONFIG.max_depth * (step % 3 == 2)])[0].tokens[1:]
                assert round_.num_drafted == len(fresh)
                assert round_.tokens[:-1] == fresh[: round_.num_accepted]
    mixed = {0, 1} if kind == "paper" else {0}
    assert {lag for row in lags for lag in row} == mixed
    assert any(len(set(row)) > 1 for row in lags) == (kind == "paper")
