"""L3: in float32, greedy tokens are those of transformers' `generate`, whatever is drafted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from kangaroo.config import DraftConfig
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.models.llama import Llama
from tests.engines import (
    BACKENDS,
    SMALL,
    NoisyDrafter,
    PerfectDrafter,
    Run,
    ScriptedBranches,
    WrongDrafter,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
)
from tests.factories import FAMILIES, make_checkpoint

NUM_TOKENS = 200
CONFIG = DraftConfig(exit_layer=1, max_depth=6, confidence=0.25)
# One of each kind in depth; its variants, and the reference backend, in passing.
IN_DEPTH = ("llama", "llama-gqa-llama3", "mistral", "qwen2", "qwen3")
BY_REFERENCE = ("llama-gqa-llama3",)


def cases() -> Iterator[Any]:
    """(backend, family, seed); most seeds are for deep runs."""
    for backend, family in product(BACKENDS, FAMILIES):
        if backend == "native":
            always, deep = 1, 20 if family in IN_DEPTH else 2
        else:
            always, deep = int(family in BY_REFERENCE), 2
        for seed in range(deep):
            marks = [pytest.mark.fuzz] if seed >= always else []
            yield pytest.param(backend, family, seed, marks=marks)


@pytest.mark.parametrize(("backend", "family", "seed"), list(cases()))
def test_greedy_tokens(backend: str, family: str, seed: int, tmp_path: Path) -> None:
    """No drafter, however good or bad, changes a token; and each is as good or bad as intended."""
    model = load(make_checkpoint(tmp_path, family, seed=seed, **SMALL), backend)
    prompt = make_prompt(model, 1 + 13 * seed % 90, seed)
    reference = Transformers(tmp_path, prompt)

    reference.check(autoregressive(model, prompt, NUM_TOKENS))
    for drafter in trained_like(model, seed):
        run = decoder_of(drafter).run(prompt, NUM_TOKENS)
        reference.check(run)
        assert 0 < run.num_accepted < run.num_drafted
    perfect, noisy, wrong = scripted(model, seed, prompt + reference.tokens)
    run = decoder_of(perfect).run(prompt, NUM_TOKENS)
    reference.check(run)
    full_rounds, rest = divmod(NUM_TOKENS, CONFIG.max_depth + 1)
    assert [len(round_.tokens) for round_ in run.rounds] == [7] * full_rounds + [rest]
    run = decoder_of(noisy).run(prompt, NUM_TOKENS)
    reference.check(run)
    assert {len(round_.tokens) - 1 for round_ in run.rounds} == set(range(CONFIG.max_depth + 1))
    run = decoder_of(wrong).run(prompt, NUM_TOKENS)
    reference.check(run)
    assert run.num_accepted == 0
    run = decoder_of(branching(model, seed, prompt + reference.tokens)).run(prompt, NUM_TOKENS)
    reference.check(run)
    assert {len(round_.tokens) - 1 for round_ in run.rounds} >= {0, 1, 2}


def branching(model: Llama, seed: int, tokens: list[int]) -> ScriptedBranches:
    """Trees in which the target's own token is at any rank."""
    adapter = make_adapter(model, ("paper", "deep_prefix")[seed % 2], CONFIG.exit_layer, seed)
    return ScriptedBranches(model, adapter, replace(CONFIG, draft="tree", draft_top_k=3), tokens)


def trained_like(model: Llama, seed: int) -> list[KangarooDrafter]:
    """Kangaroo's drafter with an adapter of each kind."""
    paper = make_adapter(model, "paper", CONFIG.exit_layer, seed)
    deep_prefix = make_adapter(model, "deep_prefix", CONFIG.exit_layer, seed)
    return [KangarooDrafter(model, adapter, CONFIG) for adapter in (paper, deep_prefix)]


def scripted(model: Llama, seed: int, tokens: list[int]) -> list[KangarooDrafter]:
    """Always right, right seven times in ten, never right; the kinds of adapter in turn."""
    kinds = ("paper", "deep_prefix") if seed % 2 else ("deep_prefix", "paper")
    first, second = (make_adapter(model, kind, CONFIG.exit_layer, seed) for kind in kinds)
    return [
        PerfectDrafter(model, first, CONFIG, tokens),
        NoisyDrafter(model, second, CONFIG, tokens),
        WrongDrafter(model, first, CONFIG, tokens),
    ]


class Transformers:
    """transformers' own continuation of a prompt by NUM_TOKENS tokens."""

    def __init__(self, path: Path, prompt: list[int]):
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        self.model.generation_config.eos_token_id = None
        ids = torch.tensor([prompt])
        ids = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NUM_TOKENS
        )
        self.prompt, self.tokens = prompt, ids[0, len(prompt) :].tolist()
        assert len(self.tokens) == NUM_TOKENS

    def check(self, run: Run) -> None:
        """Fail at the first other token, and say how near the target itself was to a tie there."""
        if run.tokens == self.tokens:
            return
        pairs = list(zip(run.tokens, self.tokens, strict=False))
        at = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), len(pairs))
        ids = torch.tensor([self.prompt + self.tokens[:at]])
        with torch.inference_mode():
            best, second = self.model.double()(ids).logits[0, -1].topk(2).values.tolist()
        pytest.fail(
            f"{len(run.tokens)} tokens, the first difference at {at}: {run.tokens[at : at + 1]} "
            f"against {self.tokens[at : at + 1]}; the margin in float64 is {best - second:.3e}"
        )
