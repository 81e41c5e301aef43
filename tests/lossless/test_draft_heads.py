"""L1 with less than the target's head to draft from: the same bits, whatever the drafter reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.head import drafting_head
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.sampled import SampledBranchingDrafter, SampledDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.draft.whole import WholeChainDrafter, chain_drafter
from kangaroo.engine.state import DecodeState
from kangaroo.models.llama import Llama
from kangaroo_kernels.draft_head import DraftHead
from tests.engines import (
    QUICK_BACKENDS,
    SMALL,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
    sampler_of,
)
from tests.factories import make_checkpoint
from tests.lossless.test_bits import PROMPT_LEN, check

NUM_TOKENS = 20
SOME = [*range(2, 40, 3), 41, 42, 60]
HEADS = {
    "int8": ("int8", None),
    "float8": ("float8", None),
    "some": (None, SOME),
    "some in int8": ("int8", SOME),
}
CHAIN = DraftConfig(2, 5, 0.0)
TREE = DraftConfig(2, 4, 0.0, draft="tree", draft_top_k=4, max_nodes=12)
STATIC = DraftConfig(2, draft="tree", tree_widths=(3, 2, 1))


@pytest.fixture(scope="module", params=QUICK_BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    path = tmp_path_factory.mktemp("target")
    return load(make_checkpoint(path, "qwen3", **(SMALL | {"num_hidden_layers": 3})), backend)


def head_of(model: Llama, name: str, backend: str) -> DraftHead:
    copy, some = HEADS[name]
    if copy == "float8" and backend == "native":
        pytest.skip("no native op reads float8")
    ids = None if some is None else torch.tensor(some).int()
    return drafting_head(model.weights.lm_head, copy, ids)


def drafters(model: Llama, kind: AdapterKind, head: DraftHead) -> Iterator[KangarooDrafter]:
    """All that there are; the first two do not draw."""
    adapter = make_adapter(model, kind, 2)
    yield chain_drafter(model, adapter, CHAIN, head=head)
    yield BranchingDrafter(model, adapter, TREE, head=head)
    yield SampledDrafter(model, adapter, CHAIN, head=head)
    yield SampledBranchingDrafter(model, adapter, TREE, head=head)
    yield SampledBranchingDrafter(model, adapter, STATIC, head=head)


def watched(drafter: KangarooDrafter, monkeypatch: pytest.MonkeyPatch) -> list[DraftTree]:
    """Every tree that it grows from now on."""
    grown: list[DraftTree] = []
    plain = drafter.draft

    def draft(state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        trees = plain(state, max_depths)
        grown.extend(trees)
        return trees

    monkeypatch.setattr(drafter, "draft", draft)
    return grown


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("name", HEADS)
def test_the_same_bits(
    model: Llama, backend: str, name: str, kind: AdapterKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chains and trees, greedy and drawn; every draft is a token of the vocabulary."""
    head, prompt, sampler = head_of(model, name, backend), make_prompt(model, PROMPT_LEN), None
    num_accepted = 0
    for drafter in drafters(model, kind, head):
        if isinstance(drafter, SampledDrafter | SampledBranchingDrafter):
            sampler = sampler_of(temperature=0.7, top_k=2)  # fewer than are ranked
        grown = watched(drafter, monkeypatch)
        run = decoder_of(drafter, sampler).run(prompt, NUM_TOKENS)
        check(run, autoregressive(model, prompt, NUM_TOKENS, sampler))
        num_accepted += run.num_accepted
        drafted = {t.tokens[n] for t in grown for n in range(len(t)) if t.parents[n] >= 0}
        assert len(drafted) > 1
        assert drafted <= set(HEADS[name][1] or range(model.config.vocab_size))
    assert num_accepted > 0


@pytest.mark.parametrize("name", ["int8", "some", "some in int8"])
def test_a_whole_chain_is_drafted_as_step_by_step(
    model: Llama, backend: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, prompt = head_of(model, name, backend), make_prompt(model, PROMPT_LEN)
    adapter = make_adapter(model, "deep_prefix", 2)
    fast = chain_drafter(model, adapter, CHAIN, head=head)
    assert isinstance(fast, WholeChainDrafter) == (backend == "native")
    chains = []
    for drafter in (fast, KangarooDrafter(model, adapter, CHAIN, head=head)):
        grown = watched(drafter, monkeypatch)
        decoder_of(drafter).run(prompt, NUM_TOKENS)
        chains.append([tree.tokens for tree in grown])
    assert chains[0] == chains[1]


def test_what_is_drawn_is_drawn_from_the_row_that_is_kept(
    model: Llama, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By rejection the row is asked again: it has no token that could not be drawn."""
    head = head_of(model, "some in int8", backend)
    drafter = SampledDrafter(model, make_adapter(model, "paper", 2), CHAIN, head=head)
    grown = watched(drafter, monkeypatch)
    sampler = sampler_of(rule="rejection", top_k=0)
    decoder_of(drafter, sampler).run(make_prompt(model, PROMPT_LEN), NUM_TOKENS)
    rows = [(row[0], tree.tokens[n + 1]) for tree in grown for n, row in tree.drawn_from.items()]
    assert rows
    outside = [token for token in range(model.config.vocab_size) if token not in SOME]
    for row, token in rows:
        assert row[token] > 0
        assert row[SOME].sum() == pytest.approx(1.0, abs=1e-12)
        assert row[outside].eq(0).all()


@pytest.mark.parametrize("config", [CHAIN, TREE, STATIC])
def test_where_processors_forbid_the_whole_vocabulary(
    model: Llama, backend: str, config: DraftConfig
) -> None:
    """Something is drafted all the same, and the target's draws are its own."""
    head, prompt = head_of(model, "some", backend), make_prompt(model, PROMPT_LEN)
    sampler = sampler_of(temperature=0.5, top_k=0, suppress_tokens=SOME)
    make = SampledBranchingDrafter if config.draft == "tree" else SampledDrafter
    drafter = make(model, make_adapter(model, "paper", 2), config, head=head)
    run = decoder_of(drafter, sampler).run(prompt, NUM_TOKENS)
    check(run, autoregressive(model, prompt, NUM_TOKENS, sampler))
    assert run.num_drafted > 0


def test_a_tree_asks_for_no_more_than_there_is(tmp_path: Path) -> None:
    model = load(make_checkpoint(tmp_path, "qwen3", **SMALL))
    head = drafting_head(model.weights.lm_head, None, torch.tensor([3, 4, 9]).int())
    with pytest.raises(ValueError, match="^draft_top_k: expected at most the 3 tokens of the head"):
        BranchingDrafter(model, make_adapter(model, "paper", 1), TREE, head=head)
