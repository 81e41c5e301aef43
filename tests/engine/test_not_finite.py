"""Logits that are no numbers are an error, never a token; and one sequence's error is its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo import KangarooForCausalLM
from kangaroo.engine import drafting
from tests.engines import BACKENDS, FIXED, PerfectDrafter

PROMPT, NUM_TOKENS = [150, 158, 222, 13, 59, 160, 163], 13
DRAFTS: dict[str, dict[str, Any]] = {
    "off": {"max_depth": 0},
    "chain": FIXED | {"max_depth": 4, "confidence": 0.0},
    "tree": FIXED | {"draft": "tree", "confidence": 0.0},
    "sampled": FIXED | {"max_depth": 4, "do_sample": True, "seed": 1, "top_k": 1},
    "processed": FIXED | {"max_depth": 4, "repetition_penalty": 1.0001},
}


@pytest.fixture(params=BACKENDS)
def llm(request: pytest.FixtureRequest, folder: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(folder, "paper", backend=request.param)


def tokens_of(llm: KangarooForCausalLM, **options: Any) -> list[int]:
    ids = llm.generate(PROMPT, max_new_tokens=NUM_TOKENS, eos_token_id=None, **options)
    return torch.as_tensor(ids)[0, len(PROMPT) :].tolist()


@contextmanager
def poisoned(rows: Tensor, row: int) -> Iterator[None]:
    """A row of weights is no number."""
    kept = rows[row].clone()
    rows[row] = torch.nan
    try:
        yield
    finally:
        rows[row] = kept


@pytest.mark.parametrize("draft", DRAFTS)
def test_logits_that_are_no_numbers_are_an_error(llm: KangarooForCausalLM, draft: str) -> None:
    """From the prompt's last token, from one that the target writes, or from the head; and the
    next call is as if nothing had been.
    """
    options, expected = DRAFTS[draft], tokens_of(llm, max_depth=0)
    weights = llm.model.weights
    culprits = [(weights.embed, PROMPT[-1], 0), (weights.lm_head, 77, 0)]
    culprits.append((weights.embed, expected[5], expected.index(expected[5]) + 1))
    for rows, row, num_good in culprits:
        rounds = llm.rounds(PROMPT, max_new_tokens=NUM_TOKENS, eos_token_id=None, **options)
        with poisoned(rows, row), pytest.raises(ValueError, match="the logits are not finite"):
            list(rounds)
        assert rounds.tokens == expected[: len(rounds.tokens)]
        assert len(rounds.tokens) <= num_good
    assert tokens_of(llm, **options) == expected


@pytest.mark.parametrize("draft", ["chain", "processed"])
def test_a_draft_that_is_no_number_changes_nothing(
    llm: KangarooForCausalLM, monkeypatch: pytest.MonkeyPatch, draft: str
) -> None:
    """Its row among those of others; it is rejected, and no row in front of it has seen it."""
    expected = tokens_of(llm, max_depth=0)
    odd = next(token for token in range(2, 263) if token not in PROMPT + expected)

    def make(model: Any, adapter: Any, config: Any, **_: Any) -> PerfectDrafter:
        return PerfectDrafter(model, adapter, config, [odd] * (len(PROMPT) + NUM_TOKENS))

    monkeypatch.setattr(drafting, "chain_drafter", make)
    with poisoned(llm.model.weights.embed, odd):
        assert tokens_of(llm, **DRAFTS[draft]) == expected
