"""Keys and values that are kept between calls: nothing but the time of prefill changes."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS, DraftConfig
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.engine.decode import PREFILL_CHUNK, Decoder
from kangaroo.engine.outputs import GenerateOutput
from kangaroo.engine.state import PastKeyValues, Request
from kangaroo.models.llama import Llama
from kangaroo_kernels import UnsupportedError
from tests.engines import (
    FIXED,
    SMALL,
    PerfectDrafter,
    autoregressive,
    load,
    make_adapter,
    make_prompt,
    num_live,
)
from tests.factories import make_checkpoint

DRAFTS: dict[str, dict[str, Any]] = {
    "chain": FIXED | {"confidence": 0.0, "max_depth": 3},
    "tree": FIXED | {"draft": "tree", "confidence": 0.0},
    "sampled": FIXED | {"do_sample": True, "seed": 3, "confidence": 0.0},
    "adaptive": {"confidence": 0.0, "max_depth": 3, "adaptive": True},
    "off": {"draft": "off"},
}


@pytest.fixture(scope="module", params=ADAPTER_KINDS)
def llm(request: pytest.FixtureRequest, folder: Path) -> Any:
    return KangarooForCausalLM.from_pretrained(folder, request.param)


@pytest.fixture
def prefilled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens go through the embedding, call by call."""
    counts, embed = [], Llama.embed

    def counted(self: Llama, tokens: torch.Tensor) -> torch.Tensor:
        counts.append(tokens.shape[1])
        return embed(self, tokens)

    monkeypatch.setattr(Llama, "embed", counted)
    return counts


class Result(NamedTuple):
    """Tokens, the logits behind the new ones, and how many drafts each round had and kept."""

    ids: list[int]
    logits: torch.Tensor
    drafted: tuple[int, ...]
    accepted: tuple[int, ...]

    def check(self, other: Result) -> None:
        """A drafter whose rows are wrong changes no token, but what is kept of its drafts."""
        assert self.ids == other.ids
        assert torch.equal(self.logits, other.logits)
        assert (self.drafted, self.accepted) == (other.drafted, other.accepted)


def generate(llm: KangarooForCausalLM, ids: list[int], **options: Any) -> Result:
    given = {"max_new_tokens": 11, "eos_token_id": None} | options
    output = llm.generate(ids, return_dict_in_generate=True, output_logits=True, **given)
    assert isinstance(output, GenerateOutput)
    speculation = output.speculation
    assert speculation is not None
    tokens, logits = torch.as_tensor(output.sequences)[0].tolist(), torch.stack(output.logits or ())
    return Result(tokens, logits, speculation.drafted_lens, speculation.accepted_lens)


@pytest.mark.parametrize("draft", DRAFTS)
def test_turns_of_a_conversation(
    llm: KangarooForCausalLM, prefilled: list[int], draft: str
) -> None:
    """Each takes over all that was said: tokens and bits of a call that knows no past."""
    past, ids = PastKeyValues(), make_prompt(llm.model, 30)
    for turn in range(6):
        expected = generate(llm, ids, **DRAFTS[draft])
        prefilled.clear()
        got = generate(llm, ids, past_key_values=past, **DRAFTS[draft])
        got.check(expected)
        assert past.tokens == got.ids[:-1]
        if turn:
            assert max(prefilled) <= 16, "the new message, and rounds"
        ids = got.ids + make_prompt(llm.model, turn, seed=turn)


@pytest.mark.parametrize("num_same", [0, 1, 17, 29, 30, 36, 40])
def test_what_two_prompts_have_in_common(
    llm: KangarooForCausalLM, prefilled: list[int], num_same: int
) -> None:
    """History that was edited is taken over up to the first token that differs."""
    past, ids = PastKeyValues(), make_prompt(llm.model, 30)
    said = generate(llm, ids, past_key_values=past, **DRAFTS["chain"]).ids
    other = said[:num_same] + [(token + 1) % 200 for token in said[num_same:]]
    expected = generate(llm, other, **DRAFTS["chain"])
    prefilled.clear()
    got = generate(llm, other, past_key_values=past, **DRAFTS["chain"])
    got.check(expected)
    num_new = len(other) - 1 - min(num_same, 40)
    assert prefilled[:1] == [num_new] or not num_new


def test_one_prompt_gone_on_with_many_times(llm: KangarooForCausalLM, prefilled: list[int]) -> None:
    """A copy keeps what there was; several sequences leave it as it is."""
    ids = make_prompt(llm.model, 40)
    past = llm.prefill(ids)
    assert past.tokens == ids[:-1]
    for draft in DRAFTS.values():
        expected, prefilled[:] = generate(llm, [*ids, 7], **draft), []
        generate(llm, [*ids, 7], past_key_values=copy(past), **draft).check(expected)
        assert max(prefilled) <= 16
    options: dict[str, Any] = {"do_sample": True, "seed": 1, "num_return_sequences": 3}
    options |= {"max_new_tokens": 9, "eos_token_id": None}
    alone, prefilled[:] = torch.as_tensor(llm.generate([*ids, 7], **options)), []
    rows = torch.as_tensor(llm.generate([*ids, 7], past_key_values=past, **options))
    assert rows.equal(alone)
    assert max(prefilled) <= 16
    assert past.tokens == ids[:-1]


def test_a_call_that_fails_leaves_what_it_has(llm: KangarooForCausalLM) -> None:
    past, ids = PastKeyValues(), make_prompt(llm.model, 20)

    def breaks(ids: torch.Tensor, _: None) -> bool:
        if ids.shape[1] == 26:
            raise OSError("the disk is full")
        return False

    with pytest.raises(OSError, match="disk"):
        generate(llm, ids, past_key_values=past, stopping_criteria=[breaks])
    assert 20 <= len(past.tokens) + 1 <= 26
    generate(llm, ids, past_key_values=past).check(generate(llm, ids))


@pytest.mark.parametrize("num_more", [0, 1, 5])
@pytest.mark.parametrize("num_new", range(1, 9))
def test_rows_are_those_of_a_whole_prefill(
    llm: KangarooForCausalLM, num_new: int, num_more: int
) -> None:
    """Of the adapter too, which is a slot behind where the last draft was accepted."""
    model, adapter, prompt = llm.model, llm.adapter, make_prompt(llm.model, 20)
    assert adapter is not None
    config, past = DraftConfig(adapter.config.exit_layer, 3, 0.0), PastKeyValues()
    tokens = prompt + autoregressive(model, prompt, 12).tokens
    perfect = Decoder(model, PerfectDrafter(model, adapter, config, tokens), config)
    for _ in perfect.generate(Request(list(prompt), num_new), past):
        pass
    said = tokens[: 20 + num_new] + make_prompt(model, num_more)
    own = Decoder(model, KangarooDrafter(model, adapter, config), config)
    with torch.inference_mode():
        states = [own.prefill(Request(list(said), 9), kept) for kept in (past, None)]
        trees = [own.drafter.draft(state, [3]) for state in states]
    assert trees[0] == trees[1]
    for mine, fresh in zip(*(state.caches for state in states), strict=True):
        assert num_live(mine) == num_live(fresh)
        assert torch.equal(*(cache.rows[..., : num_live(mine), :] for cache in (mine, fresh)))


def test_a_long_message_behind_a_slot_that_the_adapter_lacks(tmp_path: Path) -> None:
    """A whole chunk of prefill, and the slot in front of it, go through the adapter at once."""
    model = load(make_checkpoint(tmp_path, "llama", **SMALL), "reference")
    adapter, prompt = make_adapter(model, "paper", 1), make_prompt(model, 8)
    tokens, past = prompt + autoregressive(model, prompt, 4).tokens, PastKeyValues()
    config = DraftConfig(1, 3, 0.0)
    perfect = Decoder(model, PerfectDrafter(model, adapter, config, tokens), config)
    for _ in perfect.generate(Request(list(prompt), 4), past):
        pass
    assert past.state is not None
    assert past.state.lags == [1]
    own = Decoder(model, KangarooDrafter(model, adapter, config), config)
    said = tokens + make_prompt(model, PREFILL_CHUNK + 20)
    with torch.inference_mode():
        mine, fresh = (own.prefill(Request(list(said), 1), kept) for kept in (past, None))
    for a, b in zip(mine.caches, fresh.caches, strict=True):
        assert torch.equal(*(cache.rows[..., : len(said) - 1, :] for cache in (a, b)))


def test_refusals(llm: KangarooForCausalLM) -> None:
    ids = make_prompt(llm.model, 5)
    with pytest.raises(
        UnsupportedError, match="^past_key_values: expected kangaroo's own .* tuple"
    ):
        llm.generate(ids, past_key_values=((),))
    with pytest.raises(UnsupportedError, match="^prefill: expected one prompt, got 2$"):
        llm.prefill([ids, ids])
    with pytest.raises(ValueError, match="^prompt: expected at least one token, got none$"):
        llm.prefill([])
    other = KangarooForCausalLM(llm.model, llm.adapter, llm.path, llm.generation_config)
    with pytest.raises(ValueError, match="^past_key_values: expected those of this model, got"):
        generate(llm, ids, past_key_values=other.prefill(ids))


def test_a_turn_without_drafts(llm: KangarooForCausalLM, prefilled: list[int]) -> None:
    """The adapter has no rows of it, and gets them."""
    past, ids = PastKeyValues(), make_prompt(llm.model, 30)
    said = generate(llm, ids, past_key_values=past, draft="off").ids
    for draft in DRAFTS.values():
        expected = generate(llm, said, **draft)
        own, prefilled[:] = copy(past), []
        generate(llm, said, past_key_values=own, **draft).check(expected)
        assert sum(prefilled[:1]) == len(said) - 1 or draft.get("draft") == "off"
        prefilled.clear()
        generate(llm, said, past_key_values=own, **draft).check(expected)
        assert max(prefilled) <= 16
