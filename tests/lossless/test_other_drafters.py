"""L1 with drafters that are not Kangaroo's: the same bits, whoever drafts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kangaroo.config import DraftConfig
from kangaroo.draft.tree import DraftTree
from kangaroo.engine.batch import Batch
from kangaroo.engine.decode import Decoder
from kangaroo.engine.state import PastKeyValues, Request
from kangaroo.models.llama import Llama
from tests.engines import (
    OTHERS,
    QUICK_BACKENDS,
    SMALL,
    Run,
    autoregressive,
    decoder_of,
    load,
    make_prompt,
    num_live,
    poison,
    sampler_of,
)
from tests.factories import make_checkpoint
from tests.lossless.test_bits import NUM_TOKENS, PROMPT_LEN, check
from tests.lossless.test_sampled import SHAPINGS

CONFIGS = [
    DraftConfig(1, 1, 0.0),
    DraftConfig(1, 6, 0.0),
    DraftConfig(2, 4, 0.1),
    DraftConfig(3, 5, 0.0),
]


@pytest.fixture(scope="module", params=QUICK_BACKENDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    path = tmp_path_factory.mktemp("target")
    overrides = SMALL | {"num_hidden_layers": 4}
    return load(make_checkpoint(path, "llama-gqa-llama3", **overrides), str(request.param))


@pytest.fixture(scope="module")
def plain(model: Llama) -> Run:
    return autoregressive(model, make_prompt(model, PROMPT_LEN), NUM_TOKENS)


def drafter_of(name: str, model: Llama, config: DraftConfig, *, poisoned: bool = False) -> Any:
    """One of OTHERS; if `poisoned`, it finds NaN in every slot that no one has a right to read."""
    drafter: Any = OTHERS[name](model, config)
    draft = drafter.draft

    def poisoning(state: Any, max_depths: list[int]) -> list[DraftTree]:
        poison(state)
        trees: list[DraftTree] = draft(state, max_depths)
        return trees

    if poisoned:
        drafter.draft = poisoning
    return drafter


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_bits(model: Llama, plain: Run, name: str) -> None:
    """However deep and bold, wherever the target is cut; slots that are forgotten are not read."""
    num_accepted, prompt = set(), make_prompt(model, PROMPT_LEN)
    for config in CONFIGS:
        run = decoder_of(drafter_of(name, model, config)).run(prompt, NUM_TOKENS)
        check(run, plain)
        num_accepted.update(round_.num_accepted for round_ in run.rounds)
    assert num_accepted >= {0, 1}
    poisoned = decoder_of(drafter_of(name, model, config, poisoned=True)).run(prompt, NUM_TOKENS)
    check(poisoned, plain)
    for a, b in zip(run.rounds, poisoned.rounds, strict=True):
        assert (a.tokens, a.num_drafted) == (b.tokens, b.num_drafted)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("shaping", SHAPINGS)
def test_the_same_bits_when_sampling(model: Llama, name: str, shaping: str) -> None:
    """Coupled: for a seed the tokens are those of plain decoding, and some drafts meet them."""
    prompt, sampler = make_prompt(model, PROMPT_LEN), sampler_of(**SHAPINGS[shaping])
    drafter = drafter_of(name, model, DraftConfig(3, 4, 0.0))
    run = decoder_of(drafter, sampler).run(prompt, NUM_TOKENS)
    check(run, autoregressive(model, prompt, NUM_TOKENS, sampler))
    assert run.num_drafted > 0
    if name != "lookup":
        assert run.num_accepted > 0


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("offset", range(0, NUM_TOKENS, 20))
def test_an_end_of_sequence_token_inside_a_draft(
    model: Llama, plain: Run, name: str, offset: int
) -> None:
    """Nothing follows it, and the caches end where the tokens do."""
    end = plain.tokens.index(plain.tokens[offset])
    decoder = decoder_of(drafter_of(name, model, DraftConfig(3, 6, 0.0)))
    run = decoder.run(make_prompt(model, PROMPT_LEN), NUM_TOKENS, {plain.tokens[offset]})
    assert run.tokens == plain.tokens[: end + 1]
    (root,) = run.state.prefix_lens
    for cache in (run.state.shallow_kv, run.state.deep_kv):
        assert (cache.slots.committed, cache.num_nodes) == ([root], 0)
    assert num_live(run.state.adapter_kv) <= root


@pytest.mark.parametrize("name", OTHERS)
def test_a_text_that_is_gone_on_with(model: Llama, plain: Run, name: str) -> None:
    """What one call has left saves prefill of the next, of all of its tokens or of some."""
    config, past = DraftConfig(3, 4, 0.0), PastKeyValues()
    decoder, prompt = Decoder(model, drafter_of(name, model, config), config), plain.tokens[:20]
    whole = autoregressive(model, prompt, 40).tokens
    for begin, num_new in ((0, 12), (12, 9), (17, 6)):
        request = Request(prompt + whole[:begin], num_new)
        rounds = list(decoder.generate(request, past))
        assert request.tokens == prompt + whole[: begin + num_new]
        assert sum(r.num_drafted for r in rounds) > 0 or name == "lookup"


@pytest.mark.parametrize("name", OTHERS)
def test_drafts_in_a_batch_are_those_alone(model: Llama, name: str) -> None:
    """Sequences of every kind that join, wait, are preempted and cancelled: round for round what
    each would draft alone, by rejection too, where what is drafted decides what is drawn.
    """
    samplers = [
        None,
        sampler_of(1, top_k=0),
        sampler_of(2, rule="rejection", temperature=0.5),
    ]
    config = DraftConfig(3, 4, 0.1)
    decoder = Decoder(model, drafter_of(name, model, config), config)
    prompts = [make_prompt(model, length, length) for length in (1, 40, 9, 66, 2)]

    def request(n: int) -> Request:
        return Request(list(prompts[n]), 24, sampler=samplers[n % 3])

    alone = [list(decoder.generate(request(n))) for n in range(len(prompts))]
    batch, together = Batch(decoder, 3, 100), [request(n) for n in range(len(prompts))]
    rounds: list[list[Any]] = [[] for _ in prompts]
    for each in together:
        batch.add(each)
    for step in range(200):
        for number, round_ in batch.step().items():
            rounds[number].append(round_)
        if step == 2:
            batch.cancel(1)
        if step % 4 == 3 and batch.running:
            batch.preempt(batch.running[0])
    for n, (expected, got) in enumerate(zip(alone, rounds, strict=True)):
        assert len(got) == len(expected) if n != 1 else 0 < len(got) < len(expected)
        for a, b in zip(expected, got, strict=False):
            assert (a.tokens, a.num_drafted) == (b.tokens, b.num_drafted)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_drawn_is_drawn_from_the_row_that_is_kept(model: Llama, name: str) -> None:
    """By rejection every node with a child has its row; tokens that are chosen have none."""
    drafter, grown = drafter_of(name, model, DraftConfig(3, 4, 0.0)), list[DraftTree]()
    draft = drafter.draft

    def watched(state: Any, max_depths: list[int]) -> list[DraftTree]:
        trees: list[DraftTree] = draft(state, max_depths)
        grown.extend(trees)
        return trees

    drafter.draft = watched
    sampler = sampler_of(rule="rejection", top_k=5)
    decoder_of(drafter, sampler).run(make_prompt(model, PROMPT_LEN), NUM_TOKENS)
    assert any(tree.num_drafted > 1 for tree in grown)
    for tree in grown:
        parents = [] if name == "lookup" else tree.parents[1 : 1 + tree.num_drafted]
        assert list(tree.drawn_from) == parents
        for node, row in tree.drawn_from.items():
            assert row[0, tree.tokens[node + 1]] > 0
            assert torch.count_nonzero(row) <= 5
