"""The drafter of trees leaves every cache where the decode loop expects it, and drafts alike from
caches that were rolled back and from fresh ones.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.sampled import SampledBranchingDrafter, SampledDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.decode import Decoder
from kangaroo.engine.state import DecodeState
from kangaroo.models.llama import Llama
from kangaroo.sampling.sampler import Sampler
from tests.draft_parity.from_scratch import FromScratch
from tests.engines import (
    SMALL,
    ScriptedBranches,
    autoregressive,
    load,
    make_adapter,
    make_prompt,
    num_live,
    request_of,
    sampler_of,
)
from tests.factories import make_checkpoint

NUM_TOKENS, EXIT_LAYER = 40, 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    overrides = SMALL | {"num_hidden_layers": 3}
    path = make_checkpoint(tmp_path_factory.mktemp("target"), "llama-gqa-llama3", **overrides)
    return load(path, "native")


def config_of(**options: Any) -> DraftConfig:
    return DraftConfig(EXIT_LAYER, **({"draft": "tree", "confidence": 0.0} | options))


SAMPLERS = [pytest.param(None, id="greedy"), pytest.param(sampler_of(), id="sampled")]


def drafter_of(
    model: Llama, kind: AdapterKind, sampler: Sampler | None, **options: Any
) -> BranchingDrafter:
    drafter = BranchingDrafter if sampler is None else SampledBranchingDrafter
    return drafter(model, make_adapter(model, kind, EXIT_LAYER), config_of(**options))


class CheckedBranches(ScriptedBranches):
    """Checks the caches around every draft; keeps trees and how far the adapter was behind."""

    lags: list[int]

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        (root,) = state.prefix_lens
        for cache in (state.shallow_kv, state.deep_kv):
            assert (cache.slots.committed, cache.num_nodes) == ([root], 0)
        self.lags += state.lags
        (tree,) = super().draft(state, max_depths)
        assert (state.shallow_kv.num_nodes, state.deep_kv.num_nodes) == (len(tree), 0)
        if len(tree) > 1:
            parents = set(tree.parents[1:])
            assert root + max(parents) < num_live(state.adapter_kv) <= root + len(tree) - 1
        return [tree]


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_lengths_through_every_round(model: Llama, kind: AdapterKind) -> None:
    """The `paper` adapter lacks a leaf of the last pass, if that was accepted, and no more."""
    prompt = make_prompt(model, 20)
    tokens = prompt + autoregressive(model, prompt, NUM_TOKENS).tokens
    drafter = CheckedBranches(
        model, make_adapter(model, kind, EXIT_LAYER), config_of(draft_top_k=2, max_depth=3), tokens
    )
    drafter.lags = []
    new = [
        t
        for r in Decoder(model, drafter, drafter.config).generate(request_of(prompt, NUM_TOKENS))
        for t in r.tokens
    ]
    assert new == tokens[20:]
    assert set(drafter.lags) == ({0, 1} if kind == "paper" else {0})


@pytest.mark.parametrize("options", [{}, {"confidence": 0.2}, {"tree_widths": (3, 2, 1)}], ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_a_draft_depends_on_the_tokens_alone(
    model: Llama, kind: AdapterKind, sampler: Sampler | None, options: dict[str, Any]
) -> None:
    """Whatever was drafted, rejected and moved before, it is what a fresh prefill drafts."""
    drafter = drafter_of(model, kind, sampler, **options)
    decoder, prompt = Decoder(model, drafter, drafter.config), make_prompt(model, 20)
    tokens, num_left, drafts, draft = list(prompt), NUM_TOKENS, [], drafter.draft

    def kept(state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        drafts.append(draft(state, max_depths))
        return drafts[-1]

    drafter.draft = kept
    num_moved = 0
    for round_ in decoder.generate(request_of(prompt, NUM_TOKENS, sampler=sampler)):
        with torch.inference_mode():
            depth = min(drafter.config.depth, num_left - 1)
            state = decoder.prefill(request_of(tokens, NUM_TOKENS, sampler=sampler))
            assert draft(state, [depth]) == drafts[-1]
        num_moved += round_.num_accepted > 0
        tokens += round_.tokens
        num_left -= len(round_.tokens)
    assert num_moved > 2


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_what_is_drafted_behind_a_node_is_the_adapters_own(
    model: Llama, kind: AdapterKind, sampler: Sampler | None
) -> None:
    """Tokens and probabilities of a recomputation of the node's path, from scratch in float64; when
    sampling, shares of the race.
    """
    adapter, prompt = make_adapter(model, kind, EXIT_LAYER), make_prompt(model, 30)
    exact = FromScratch(model, adapter, torch.float64)
    drafter = drafter_of(model, kind, sampler, draft_top_k=4)
    rankings = drafter._rankings
    checked = []

    def compared(own: Any, state: DecodeState, trees: list[DraftTree]) -> Any:
        (found,), (tree,) = rankings(own, state, trees), trees
        tokens_so_far = state.requests[0].tokens
        for node, (tokens, probabilities) in enumerate(found, len(tree) - len(found)):
            path, at = [], node
            while at > 0:
                path, at = [tree.tokens[at], *path], tree.parents[at]
            states = exact.adapter_states(tokens_so_far + path, state.prefix_lens[0])[-1:]
            row = exact.probabilities(states)
            if sampler is not None:
                place = torch.tensor([[0], [len(tokens_so_far + path)]])
                row = sampler.source.scores(row, *place).exp()
            best = (row / row.sum())[0].topk(4)
            assert list(tokens) == best.indices.tolist()
            assert torch.tensor(probabilities).allclose(best.values.float(), rtol=1e-3)
            checked.append(tree.depths[node])
        return [found]

    drafter._rankings = compared
    request = request_of(prompt, NUM_TOKENS, sampler=sampler)
    for _ in Decoder(model, drafter, drafter.config).generate(request):
        pass
    assert set(checked) >= {0, 1, 2, 3, 4}


def test_the_cache_has_room_for_a_tree_behind_the_last_token(model: Llama) -> None:
    adapter = make_adapter(model, "paper", EXIT_LAYER)
    assert BranchingDrafter(model, adapter, config_of()).new_cache(1, 128).num_slots == 192


def test_more_tokens_than_the_target_has(tmp_path: Any) -> None:
    model = load(make_checkpoint(tmp_path, "llama", **(SMALL | {"vocab_size": 7})))
    adapter = make_adapter(model, "paper", 1)
    for name, options in (("draft_top_k", {}), ("tree_widths", {"tree_widths": (10,)})):
        with pytest.raises(ValueError, match=f"^{name}: expected at most the 7 tokens .* got 10$"):
            BranchingDrafter(model, adapter, DraftConfig(1, draft="tree", **options))


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_a_sampled_tree_of_width_one_is_the_sampled_chain(model: Llama, kind: AdapterKind) -> None:
    sampler, prompt = sampler_of(temperature=0.5), make_prompt(model, 20)
    tree = drafter_of(model, kind, sampler, draft_top_k=1, max_depth=4)
    chain = SampledDrafter(model, tree.adapter, DraftConfig(EXIT_LAYER, 4, 0.0))
    runs = []
    for drafter in (tree, chain):
        request = request_of(prompt, NUM_TOKENS, sampler=sampler)
        rounds = Decoder(model, drafter, drafter.config).generate(request)
        runs.append([(r.tokens, r.num_drafted, r.num_accepted) for r in rounds])
    assert runs[0] == runs[1]
    assert sum(num_accepted for *_, num_accepted in runs[0]) > 0
