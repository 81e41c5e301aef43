"""What callers hand over: callables, masks, numbers of any library, configs; and what is said of
what they should not have handed over.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from kangaroo import KangarooForCausalLM
from kangaroo.engine.state import SequenceError
from tests.engines import FIXED, make_prompt

DRAFTS: dict[str, dict[str, Any]] = {
    "off": {"draft": "off"},
    "chain": FIXED | {"confidence": 0.0, "max_depth": 4},
    "tree": FIXED | {"draft": "tree", "confidence": 0.0},
    "copies": FIXED | {"lookup": 1, "confidence": 0.0},
}


@pytest.fixture(scope="module")
def llm(folder: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(folder, "deep_prefix")


def said(llm: KangarooForCausalLM, ids: Any, **options: Any) -> list[list[int]]:
    """New tokens of every row."""
    options = {"max_new_tokens": 9, "eos_token_id": None, "pad_token_id": 0} | options
    longest = ids.shape[1] if isinstance(ids, Tensor) else max(map(len, ids))
    rows: list[list[int]] = torch.as_tensor(llm.generate(ids, **options))[:, longest:].tolist()
    return rows


@pytest.mark.parametrize("draft", DRAFTS)
def test_prefixes_are_allowed_by_row(llm: KangarooForCausalLM, folder: Path, draft: str) -> None:
    """As transformers numbers them, several sequences of a prompt too."""
    ids = torch.tensor([make_prompt(llm.model, 6, seed) for seed in (1, 2)])

    def allowed(row: int, _: Tensor) -> list[int]:
        return list(range(20 * row + 20, 20 * row + 30))

    theirs: Any = AutoModelForCausalLM.from_pretrained(folder)
    options = {"max_new_tokens": 9, "eos_token_id": None, "prefix_allowed_tokens_fn": allowed}
    expected = theirs.generate(ids, do_sample=False, **options)[:, 6:].tolist()
    assert said(llm, ids, prefix_allowed_tokens_fn=allowed, **DRAFTS[draft]) == expected
    several = said(
        llm, ids, prefix_allowed_tokens_fn=allowed, do_sample=True, seed=1,
        num_return_sequences=2, **DRAFTS[draft],
    )  # fmt: skip
    assert [{token // 20 - 1 for token in row} for row in several] == [{0}, {1}, {2}, {3}]


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "seed": 3}])
@pytest.mark.parametrize("draft", DRAFTS)
def test_no_processor_is_asked_behind_the_end(
    llm: KangarooForCausalLM, draft: str, sampling: dict[str, Any]
) -> None:
    """Wherever the end is: a grammar has nothing to allow there."""
    prompt, rules = make_prompt(llm.model, 12), ["coupled", "rejection"]
    for rule in rules if sampling else [None]:
        options = DRAFTS[draft] | sampling | ({"draft_sampling": rule} if rule else {})
        (plain,) = said(llm, [prompt], **options)
        for end in dict.fromkeys(plain):
            asked = list[int]()

            def processor(ids: Tensor, scores: Tensor, seen: list[int] = asked) -> Tensor:
                seen.append(ids.shape[1] - len(prompt))
                return scores

            given = options | {"eos_token_id": end, "logits_processor": [processor]}
            (row,) = said(llm, [prompt], **given)
            assert end in row
            assert asked == list(range(len(asked)))
            assert len(asked) == row.index(end) + 1


@pytest.mark.parametrize("draft", DRAFTS)
def test_infinite_scores_ask_for_a_token(llm: KangarooForCausalLM, draft: str) -> None:
    def force(_: Tensor, scores: Tensor) -> Tensor:
        scores[:, 33] = torch.inf
        return scores

    def forbid(_: Tensor, scores: Tensor) -> Tensor:
        return scores.fill_(-torch.inf)

    prompt = make_prompt(llm.model, 12)
    assert said(llm, [prompt], logits_processor=[force], **DRAFTS[draft]) == [[33] * 9]
    with pytest.raises(ValueError, match="expected a positive finite sum"):
        said(llm, [prompt], logits_processor=[forbid], **DRAFTS[draft])


def test_padding_is_what_a_tensor_has(llm: KangarooForCausalLM) -> None:
    """Of one row as of several; a list begins with its first token."""
    prompt = [0, *make_prompt(llm.model, 6)]
    whole, bare = said(llm, [prompt]), said(llm, [prompt[1:]])
    assert whole != bare
    assert said(llm, [prompt, prompt[1:]]) == whole + bare
    padded = torch.tensor([[0, 0, *prompt[1:]]])
    assert said(llm, padded) == said(llm, padded.repeat(2, 1))[:1] == bare
    assert said(llm, padded, attention_mask=torch.ones_like(padded)) != bare


def test_masks_as_tokenizers_give_them(llm: KangarooForCausalLM) -> None:
    """Lists for lists, one or several."""
    rows = [make_prompt(llm.model, 6), make_prompt(llm.model, 4)]
    expected = said(llm, rows)
    assert said(llm, rows, attention_mask=[[1] * 6, [1] * 4]) == expected
    assert said(llm, np.array([rows[0]]), attention_mask=np.ones((1, 6))) == expected[:1]
    ids = torch.as_tensor(llm.generate(rows[0], attention_mask=[1] * 6, max_new_tokens=1))
    assert ids[0, :6].tolist() == rows[0]
    with pytest.raises(ValueError, match=r"^attention_mask: expected shape rows of \[6, 4\], got"):
        said(llm, rows, attention_mask=[[1] * 6, [1] * 6])


def test_a_batch_says_who_cannot_go_on(llm: KangarooForCausalLM) -> None:
    """Without that sequence the others say what they would have said."""

    def broken(ids: Tensor, scores: Tensor) -> Tensor:
        return scores * (torch.nan if ids.shape[1] > 14 else 1.0)

    prompts = [make_prompt(llm.model, 12, seed) for seed in range(3)]
    batch = llm.batch(3, 64, **DRAFTS["chain"])
    options = {"max_new_tokens": 9, "eos_token_id": None}
    requests = [
        llm.request(prompt, logits_processor=[broken] if n == 1 else None, **options)
        for n, prompt in enumerate(prompts)
    ]
    for request in requests:
        batch.add(request)
    refused = list[int]()
    while len(batch):
        try:
            batch.step()
        except SequenceError as refusal:
            refused.append(refusal.number)
            batch.cancel(refusal.number)
    assert refused == [1]
    for n in (0, 2):
        assert requests[n].tokens[12:] == said(llm, [prompts[n]])[0]


def test_a_request_is_added_once(llm: KangarooForCausalLM) -> None:
    batch, request = llm.batch(1, 64), llm.request([5, 6], max_new_tokens=4, eos_token_id=None)
    batch.add(llm.request([7], max_new_tokens=4, eos_token_id=None))
    for _ in range(2):
        number = batch.add(request)
        with pytest.raises(ValueError, match="^request: expected one that is not in the batch"):
            batch.add(request)
        batch.step()
        batch.cancel(number)


def test_a_folder_that_says_more_than_transformers_knows(llm: KangarooForCausalLM) -> None:
    folder: Any = copy.deepcopy(llm.generation_config)
    folder.chat_format = "chatml"
    told = KangarooForCausalLM(llm.model, llm.adapter, llm.path, folder)
    assert said(told, [[5, 6]]) == said(told, [[5, 6]], generation_config=copy.deepcopy(folder))
    other = copy.deepcopy(folder)
    other.chat_format = "other"
    with pytest.raises(ValueError, match="^generate has no option chat_format$"):
        told.generate([5, 6], other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_depth": "3"}, "max_depth: expected an integer, got '3'"),
        ({"max_depth": 2.5}, "max_depth: expected an integer, got 2.5"),
        ({"lookup": True}, "lookup: expected an integer, got True"),
        ({"confidence": "0.1"}, "confidence: expected a number, got '0.1'"),
        ({"tree_widths": 3, "draft": "tree"}, "tree_widths: expected a list, each an integer"),
        ({"costs": ["a", 1]}, "costs: expected a list, each a number"),
        ({"eos_token_id": 1.5}, "eos_token_id: expected a token id or a list of them, got 1.5"),
        ({"stopping_criteria": len}, "stopping_criteria: expected a list of callables"),
        ({"logits_processor": len}, "logits_processor: expected a list of callables"),
    ],
)
def test_bad_values(llm: KangarooForCausalLM, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        llm.generate([5, 6], max_new_tokens=2, **options)


def test_numbers_of_other_libraries(llm: KangarooForCausalLM) -> None:
    options = {"max_depth": np.int64(2), "confidence": np.float32(0.5), "adaptive": False}
    plain = said(llm, [[5, 6]])
    end = plain[0].index(plain[0][3]) + 1
    assert said(llm, [[5, 6]], eos_token_id=np.int64(plain[0][3]), **options)[0] == plain[0][:end]
    drawn = [said(llm, [[5, 6]], do_sample=True, seed=1, top_k=k) for k in (0, 10**12)]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"foo": 1}, "drafting has no option foo"),
        ({"draft_sampling": "coupled"}, "drafting has no option draft_sampling"),
        ({"max_len": -100}, "max_len: expected at least 1, got -100"),
    ],
)
def test_bad_batches(llm: KangarooForCausalLM, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        llm.batch(**{"capacity": 2, "max_len": 64, **options})
