"""Stop strings, criteria and time end a sequence where they end transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

from kangaroo import KangarooForCausalLM
from kangaroo.engine import drafting
from tests.engines import FIXED, PerfectDrafter

PROMPT = torch.tensor([[150, 158, 222, 13, 59, 160, 163]])
NUM_TOKENS = 14
DRAFTS: list[dict[str, Any]] = [
    {"max_depth": 0},
    FIXED | {"max_depth": 4},
    FIXED | {"draft": "tree", "max_nodes": 24, "confidence": 0.0},
]


@pytest.fixture(scope="module")
def llm(folder: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(folder, "paper")


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def full(theirs: Any) -> list[int]:
    """What follows where nothing ends it."""
    return continued(theirs)


@pytest.fixture(autouse=True)
def perfect(monkeypatch: pytest.MonkeyPatch, full: list[int]) -> None:
    """Every chain is what the target says: rounds of five tokens."""
    tokens = PROMPT[0].tolist() + full

    def make(model: Any, adapter: Any, config: Any, **_: Any) -> Any:
        if adapter is None:
            return plain(model, adapter, config)
        return PerfectDrafter(model, adapter, config, tokens)

    plain = drafting.chain_drafter
    monkeypatch.setattr(drafting, "chain_drafter", make)


def continued(model: Any, **options: Any) -> list[int]:
    options = {"max_new_tokens": NUM_TOKENS, "eos_token_id": None, "do_sample": False} | options
    return torch.as_tensor(model.generate(PROMPT, **options))[0, PROMPT.shape[1] :].tolist()


class Counting(StoppingCriteria):
    """Ends behind so many tokens; keeps the lengths that it was asked about."""

    def __init__(self, total: int):
        self.total, self.asked = total, [0]

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self.asked.append(input_ids.shape[1])
        return torch.tensor([input_ids.shape[1] >= self.total])


@pytest.mark.parametrize("draft", DRAFTS, ids=str)
def test_stop_strings(
    llm: KangarooForCausalLM, theirs: Any, full: list[int], draft: dict[str, Any]
) -> None:
    """At every token, within one and across two."""
    lengths = set()
    for at in range(len(full) - 1):
        text = llm.tokenizer.decode(full[at : at + 2])
        for string in (text, text[1:], [text[:1], "no such text"]):
            if not string or not string[0] or "\ufffd" in string:
                continue
            expected = continued(theirs, stop_strings=string, tokenizer=llm.tokenizer)
            assert continued(llm, stop_strings=string, **draft) == expected
            lengths.add(len(expected))
    given = {"stop_strings": text, "tokenizer": llm.tokenizer}
    assert continued(llm, **given, **draft) == continued(theirs, **given)
    assert len(lengths) > 3


@pytest.mark.parametrize("draft", DRAFTS, ids=str)
@pytest.mark.parametrize("new", range(1, NUM_TOKENS + 2))
def test_criteria_are_asked_once_a_token(
    llm: KangarooForCausalLM, full: list[int], draft: dict[str, Any], new: int
) -> None:
    first, second = Counting(PROMPT.shape[1] + new), Counting(1000)
    criteria = StoppingCriteriaList([first, second])
    assert continued(llm, stopping_criteria=criteria, **draft) == full[:new]
    asked = [PROMPT.shape[1] + count for count in range(1, min(new, NUM_TOKENS) + 1)]
    assert first.asked == second.asked == [0, *asked]


@pytest.mark.parametrize("draft", DRAFTS, ids=str)
def test_time(llm: KangarooForCausalLM, full: list[int], draft: dict[str, Any]) -> None:
    """No token follows the one behind which it has run out."""
    assert continued(llm, max_time=1e-9, **draft) == full[:1]
    assert continued(llm, max_time=1e9, **draft) == full


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_time": 0}, ValueError, "max_time: expected seconds above 0, got 0"),
        ({"stop_strings": ["a", ""]}, ValueError, "stop_strings: expected texts"),
        ({"stop_strings": [3]}, ValueError, "stop_strings: expected texts"),
        ({"stopping_criteria": [3]}, ValueError, "stopping_criteria: expected callables, got 3"),
        ({"tokenizer": object()}, ValueError, "tokenizer: has no effect without stop_strings"),
    ],
)
def test_refusals(
    llm: KangarooForCausalLM, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        continued(llm, **options)
