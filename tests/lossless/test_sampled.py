"""L1 when sampling: for a seed, with drafts or without, the same tokens from the same bits.

As `test_bits` and `test_trees`, whose drafters know the plain run; here it is a drawn one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.sampled import SampledBranchingDrafter, SampledDrafter
from kangaroo.models.llama import Llama
from kangaroo.sampling.sampler import Sampler
from tests.engines import (
    QUICK_BACKENDS,
    SMALL,
    Run,
    ScriptedBranches,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
    sampler_of,
)
from tests.factories import FAMILIES, make_checkpoint
from tests.lossless.test_bits import NUM_TOKENS, PROMPT_LEN, SCRIPTED, check
from tests.lossless.test_trees import SHAPES, config_of

SHAPINGS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.7, "top_k": 0},
    "most probable": {"top_k": 8, "top_p": 0.9},
    "penalties": {"temperature": 0.6, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
}


@pytest.fixture(scope="module", params=QUICK_BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    path = tmp_path_factory.mktemp("target")
    overrides = SMALL | {"num_hidden_layers": 3}
    return load(make_checkpoint(path, "llama-gqa-llama3", **overrides), backend)


def plain_run(model: Llama, sampler: Sampler) -> Run:
    return autoregressive(model, make_prompt(model, PROMPT_LEN), NUM_TOKENS, sampler)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("shaping", SHAPINGS)
def test_any_stopping_rule(model: Llama, shaping: str, kind: AdapterKind) -> None:
    """The drafter that draws, however deep and however bold."""
    sampler, prompt = sampler_of(**SHAPINGS[shaping]), make_prompt(model, PROMPT_LEN)
    plain, adapter = plain_run(model, sampler), make_adapter(model, kind, 2)
    num_accepted = set()
    for depth in (1, 2, 6):
        for confidence in (0.0, 0.1, 1.0):
            drafter = SampledDrafter(model, adapter, DraftConfig(2, depth, confidence))
            run = decoder_of(drafter, sampler).run(prompt, NUM_TOKENS)
            check(run, plain)
            num_accepted.update(round_.num_accepted for round_ in run.rounds)
    assert num_accepted >= {0, 1}


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("shaping", SHAPINGS)
def test_any_number_accepted(model: Llama, shaping: str, kind: AdapterKind) -> None:
    """Drafters that know what will be drawn: all, some or none of every draft."""
    sampler, prompt = sampler_of(**SHAPINGS[shaping]), make_prompt(model, PROMPT_LEN)
    plain, adapter = plain_run(model, sampler), make_adapter(model, kind, 1)
    num_accepted = set()
    for drafters in SCRIPTED:
        drafter = drafters(model, adapter, DraftConfig(1, 5), prompt + plain.tokens)
        run = decoder_of(drafter, sampler).run(prompt, NUM_TOKENS)
        check(run, plain)
        num_accepted.update(round_.num_accepted for round_ in run.rounds)
    assert num_accepted >= {0, 1, 5}


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_tree(model: Llama, shape: str, kind: AdapterKind) -> None:
    """Drafts of the adapter's own, and some that are right at any rank."""
    sampler, prompt = sampler_of(**SHAPINGS["penalties"]), make_prompt(model, PROMPT_LEN)
    plain, adapter = plain_run(model, sampler), make_adapter(model, kind, 2)
    config = config_of(2, **SHAPES[shape])
    own = SampledBranchingDrafter(model, adapter, config)
    check(decoder_of(own, sampler).run(prompt, NUM_TOKENS), plain)
    scripted = ScriptedBranches(model, adapter, config, prompt + plain.tokens)
    run = decoder_of(scripted, sampler).run(prompt, NUM_TOKENS)
    check(run, plain)
    assert {round_.num_accepted for round_ in run.rounds} >= {0, 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_any_family(backend: str, family: str, tmp_path: Path) -> None:
    """And any sequence of a seed."""
    model = load(make_checkpoint(tmp_path, family, seed=1, **SMALL), backend)
    prompt, adapter = make_prompt(model, PROMPT_LEN), make_adapter(model, "deep_prefix", 1)
    for sequence in range(2):
        sampler = sampler_of(sequence, **SHAPINGS["temperature"])
        plain = plain_run(model, sampler)
        for drafter in (
            SampledDrafter(model, adapter, DraftConfig(1, 4, 0.0)),
            SCRIPTED[1](model, adapter, DraftConfig(1), prompt + plain.tokens),
            ScriptedBranches(model, adapter, config_of(draft_top_k=3), prompt + plain.tokens),
        ):
            check(decoder_of(drafter, sampler).run(prompt, NUM_TOKENS), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_any_dtype(backend: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = load(make_checkpoint(tmp_path, "qwen3", dtype=dtype, **SMALL), backend, dtype)
    prompt, sampler = make_prompt(model, PROMPT_LEN), sampler_of(**SHAPINGS["temperature"])
    plain = plain_run(model, sampler)
    for kind in ADAPTER_KINDS:
        drafter = SampledDrafter(model, make_adapter(model, kind, 1), DraftConfig(1, 4))
        check(decoder_of(drafter, sampler).run(prompt, NUM_TOKENS), plain)


@pytest.mark.parametrize("shaping", ["temperature", "most probable"])
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_kernels_draw_what_the_rule_draws(model: Llama, shaping: str, kind: AdapterKind) -> None:
    """The rule whose law is exact (tests/sampling), and what serves in its place, beside drafts."""
    sampler, prompt = sampler_of(**SHAPINGS[shaping]), make_prompt(model, PROMPT_LEN)
    assert sampler.draw is not None
    drafter = SampledDrafter(model, make_adapter(model, kind, 2), DraftConfig(2, 4, 0.0))
    ruled, served = (
        decoder_of(drafter, each).run(prompt, NUM_TOKENS)
        for each in (replace(sampler, draw=None), sampler)
    )
    assert served.tokens == ruled.tokens
    assert 0 < served.num_accepted < served.num_drafted


def test_kernels_do_not_judge_by_rejection() -> None:
    with pytest.raises(ValueError, match="draw: expected None beside draft_sampling='rejection'"):
        replace(sampler_of(), draft_sampling="rejection")


def test_a_sampler_by_rejection_is_seen(model: Llama) -> None:
    """Its tokens hang on what is drafted, so the checks above can fail."""
    rejecting = sampler_of(rule="rejection", **SHAPINGS["temperature"])
    plain, adapter = plain_run(model, rejecting), make_adapter(model, "paper", 1)
    drafter = SampledDrafter(model, adapter, DraftConfig(1, 4, 0.0))
    run = decoder_of(drafter, rejecting).run(make_prompt(model, PROMPT_LEN), NUM_TOKENS)
    assert run.tokens != plain.tokens
