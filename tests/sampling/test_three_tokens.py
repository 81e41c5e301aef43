"""The law of what a real model draws, by its own head or a cheaper one, beside transformers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from kangaroo import KangarooForCausalLM
from kangaroo.config import DRAFT_SAMPLINGS
from tests.folders import VOCAB_SIZE
from tests.sampling.test_generate import PROMPT, TREE, sample

# Of the two tokens that may follow here and there, one may be drafted, both or none.
EXTRAS: dict[str, dict[str, Any]] = {
    "whole": {},
    "cheap": {"draft_head": "int8", "draft_vocab": range(0, VOCAB_SIZE, 2)},
}


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("rule", DRAFT_SAMPLINGS)
@pytest.mark.parametrize("draft", [{}, TREE], ids=["chain", "tree"])
@pytest.mark.parametrize("extras", EXTRAS)
def test_the_law_of_three_tokens(
    folder: Path, theirs: Any, extras: str, draft: dict[str, Any], rule: str
) -> None:
    """Joint chi-square over seeds, against probabilities of transformers' own logits."""
    llm = KangarooForCausalLM.from_pretrained(folder, "deep_prefix", **EXTRAS[extras])
    num_draws, options = 400, {"top_k": 2, "temperature": 2.0, "max_new_tokens": 3}
    options["draft_sampling"] = rule
    drawn = Counter(
        tuple(sample(llm, seed, **{"max_depth": 2, "confidence": 0.0} | options | draft))
        for seed in range(num_draws)
    )
    law: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        longer = {}
        for ids, weight in law.items():
            with torch.no_grad():
                logits = theirs(torch.tensor([[*PROMPT, *ids]])).logits[0, -1].double()
            best = logits.topk(2)
            for token, p in zip(best.indices, (best.values / 2).softmax(-1), strict=True):
                longer[(*ids, int(token))] = weight * float(p)
        law = longer
    assert drawn.keys() <= law.keys()
    expected = {ids: num_draws * weight for ids, weight in law.items()}
    chi_square = sum((drawn[ids] - e) ** 2 / e for ids, e in expected.items())
    assert chi_square < 40.5  # 7 degrees of freedom: one in a million is above
