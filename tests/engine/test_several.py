"""generate for several prompts: the rows of transformers, each as it is alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from kangaroo import KangarooForCausalLM
from kangaroo.engine.outputs import GenerateOutput
from kangaroo_kernels import UnsupportedError
from tests.engines import FIXED, make_prompt

PAD, LENS, NUM_TOKENS = 1, (5, 9, 1, 7), 12
DRAFTS: dict[str, dict[str, Any]] = {
    "off": {"draft": "off"},
    "chain": FIXED | {"confidence": 0.0, "max_depth": 3},
    "tree": FIXED | {"draft": "tree", "confidence": 0.0},
    "adaptive": {"confidence": 0.0, "max_depth": 3, "adaptive": True},
}


@pytest.fixture(scope="module")
def llm(folder: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(folder, "paper")


@pytest.fixture(scope="module")
def prompts(llm: KangarooForCausalLM) -> list[list[int]]:
    rows = [make_prompt(llm.model, length, seed) for seed, length in enumerate(LENS)]
    return [[max(token, 2) for token in row] for row in rows]  # none of them padding


def padded(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Padded on the left, and the mask."""
    longest = max(map(len, prompts))
    ids = [[PAD] * (longest - len(row)) + row for row in prompts]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def ids_of(output: Tensor | GenerateOutput) -> Tensor:
    return output if isinstance(output, Tensor) else torch.as_tensor(output.sequences)


@pytest.mark.parametrize("draft", DRAFTS)
def test_rows_of_transformers(
    folder: Path, llm: KangarooForCausalLM, prompts: list[list[int]], draft: str
) -> None:
    """Padding in front and behind, ends at different places."""
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    ids, mask = padded(prompts)
    full = ids_of(
        llm.generate(ids, attention_mask=mask, max_new_tokens=NUM_TOKENS, pad_token_id=PAD)
    )
    end = [int(full[1, 9 + 3]), int(full[3, 9 + 6])]
    for options in (
        {"max_new_tokens": NUM_TOKENS},
        {"max_new_tokens": NUM_TOKENS, "eos_token_id": end},
        {"max_length": 9 + 4, "eos_token_id": end},
        {"max_new_tokens": 5, "repetition_penalty": 1.0, "stop_strings": None},
    ):
        given: dict[str, Any] = {"attention_mask": mask, "pad_token_id": PAD} | options
        assert ids_of(llm.generate(ids, **given, **DRAFTS[draft])).equal(
            theirs.generate(ids, **given)
        ), options


@pytest.mark.parametrize("draft", DRAFTS)
def test_each_is_what_it_is_alone(
    llm: KangarooForCausalLM, prompts: list[list[int]], draft: str
) -> None:
    """Tokens, and the bits of the logits; lists of any lengths stand for rows that are padded."""
    options: dict[str, Any] = {
        "max_new_tokens": NUM_TOKENS,
        "pad_token_id": PAD,
        "return_dict_in_generate": True,
        "output_logits": True,
        "output_logprobs": True,
    } | DRAFTS[draft]
    together = llm.generate(prompts, **options)
    assert isinstance(together, GenerateOutput)
    assert together.logits is not None
    assert together.logprobs is not None
    rows = torch.stack(together.logits, 1)
    assert rows.shape[:2] == together.logprobs.shape == (len(LENS), NUM_TOKENS)
    for b, prompt in enumerate(prompts):
        alone = llm.generate(prompt, **options)
        assert isinstance(alone, GenerateOutput)
        new = ids_of(alone)[0, len(prompt) :]
        assert ids_of(together)[b, max(LENS) :].equal(new)
        assert torch.equal(rows[b], torch.stack(alone.logits or (), 1)[0])
        exact = rows[b].double().log_softmax(-1)[range(NUM_TOKENS), new]
        torch.testing.assert_close(together.logprobs[b], exact.float())
    assert together.speculation is not None
    assert together.speculation.num_tokens == len(LENS) * NUM_TOKENS


def test_logits_of_transformers(
    folder: Path, llm: KangarooForCausalLM, prompts: list[list[int]]
) -> None:
    """One [B, V] a new token; not a number behind the end of a sequence."""
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    ids, mask = padded(prompts)
    options: dict[str, Any] = {
        "attention_mask": mask,
        "pad_token_id": PAD,
        "max_new_tokens": NUM_TOKENS,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    free = ids_of(llm.generate(ids, **options))
    options["eos_token_id"] = int(free[1, max(LENS) + 3])
    ours, expected = llm.generate(ids, **options), theirs.generate(ids, **options)
    assert isinstance(ours, GenerateOutput)
    assert ids_of(ours).equal(expected.sequences)
    assert ours.logits is not None
    assert len(ours.logits) == len(expected.logits)
    for b in range(len(LENS)):
        new = ids_of(ours)[b, max(LENS) :].tolist()
        end = (*new, options["eos_token_id"]).index(options["eos_token_id"]) + 1
        for step, (mine, other) in enumerate(zip(ours.logits, expected.logits, strict=True)):
            if step < end:
                torch.testing.assert_close(mine[b], other[b], rtol=1e-4, atol=1e-4)
            else:
                assert mine[b].isnan().all()


@pytest.mark.parametrize("draft", DRAFTS)
def test_scores_of_transformers(
    folder: Path, llm: KangarooForCausalLM, prompts: list[list[int]], draft: str
) -> None:
    """Shaped by processors; without any, the logits. Warpers leave no draw a choice here."""
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    for shape in ({}, {"repetition_penalty": 1.7}, {"do_sample": True, "top_k": 1}):
        options: dict[str, Any] = {"max_new_tokens": NUM_TOKENS, "return_dict_in_generate": True}
        options |= {"output_scores": True} | shape
        expected = theirs.generate(torch.tensor(prompts[:1]), **options)
        ours = llm.generate(prompts[0], **options, **DRAFTS[draft])
        assert isinstance(ours, GenerateOutput)
        assert ids_of(ours).equal(expected.sequences)
        assert ours.scores is not None
        for mine, other in zip(ours.scores, expected.scores, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_drawn_rows_are_independent(llm: KangarooForCausalLM, prompts: list[list[int]]) -> None:
    """Rows of one prompt differ; a row is the same whatever stands beside it and is drafted."""
    options: dict[str, Any] = {
        "max_new_tokens": NUM_TOKENS,
        "do_sample": True,
        "seed": 3,
        "pad_token_id": PAD,
        "num_return_sequences": 2,
    }
    rows = ids_of(llm.generate(prompts, **options)).tolist()
    assert len({tuple(row) for row in rows}) == 2 * len(LENS)
    for draft in DRAFTS.values():
        assert ids_of(llm.generate(prompts, **options, **draft)).tolist() == rows
    first = ids_of(llm.generate(prompts[:1], **options)).tolist()
    assert [row[max(LENS) :] for row in rows[:2]] == [row[LENS[0] :] for row in first]


def test_padding_is_seen_where_no_mask_is_given(
    llm: KangarooForCausalLM, prompts: list[list[int]]
) -> None:
    """As transformers does it: the padding token in front, unless it ends sequences too."""
    ids, mask = padded(prompts)
    options: dict[str, Any] = {"max_new_tokens": 4, "pad_token_id": PAD, "eos_token_id": None}
    masked = ids_of(llm.generate(ids, attention_mask=mask, **options))
    assert ids_of(llm.generate(ids, **options)).equal(masked)
    unseen = ids_of(llm.generate(ids, **(options | {"eos_token_id": PAD})))
    assert not unseen[0].equal(masked[0])
    assert ids_of(llm.generate(ids[:1], **options))[0, 9:].equal(masked[0, 9:])


def test_refusals(llm: KangarooForCausalLM, prompts: list[list[int]]) -> None:
    ids, mask = padded(prompts)
    with pytest.raises(UnsupportedError, match="^attention_mask: expected padding on the left"):
        llm.generate(ids, attention_mask=mask.flip(1))
    with pytest.raises(ValueError, match=r"^attention_mask: expected shape \[4, 9\], got \[4, 8\]"):
        llm.generate(ids, attention_mask=mask[:, 1:])
    with pytest.raises(ValueError, match="^input_ids: expected at least one prompt, got none$"):
        llm.generate(torch.empty(0, 3, dtype=torch.int64))
    with pytest.raises(UnsupportedError, match="^rounds: expected one sequence .* got 4$"):
        llm.rounds(prompts)
    with pytest.raises(ValueError, match="^prompt: expected tokens in"):
        llm.generate([[5], [999]])


@pytest.mark.parametrize("draft", DRAFTS)
def test_requests_of_a_batch(
    llm: KangarooForCausalLM, prompts: list[list[int]], draft: str
) -> None:
    """Greedy and drawn ones beside each other, each with options of its own, as generate has it."""
    ways: list[dict[str, Any]] = [
        {"max_new_tokens": 12},
        {"max_new_tokens": 7, "do_sample": True, "seed": 3, "top_k": 5},
        {"max_new_tokens": 12, "repetition_penalty": 1.3},
        {"max_new_tokens": 9, "do_sample": True, "seed": 4, "draft_sampling": "coupled"},
        {"max_new_tokens": 12, "stopping_criteria": [lambda ids, _: ids.shape[1] >= 9]},
    ]
    batch = llm.batch(3, 32, **DRAFTS[draft])
    requests = [llm.request(prompts[n % len(LENS)], **way) for n, way in enumerate(ways)]
    for request in requests:
        batch.add(request)
    while len(batch):
        batch.step()
    for n, (request, way) in enumerate(zip(requests, ways, strict=True)):
        assert request.tokens == ids_of(llm.generate(prompts[n % len(LENS)], **way))[0].tolist()


def test_what_is_no_request(llm: KangarooForCausalLM, prompts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="^max_depth: has no effect on a request of a batch"):
        llm.request(prompts[0], max_depth=3)
    with pytest.raises(ValueError, match="^output_logits: has no effect on a request of a batch"):
        llm.request(prompts[0], output_logits=True)
    with pytest.raises(UnsupportedError, match="^request: expected one sequence, got 4$"):
        llm.request(prompts)
    with pytest.raises(ValueError, match="^capacity: expected at least 1, got 0$"):
        llm.batch(0, 10)
