"""Wherever a sequence ends, ids, stream and figures end there together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from kangaroo import KangarooForCausalLM
from kangaroo.engine import drafting
from kangaroo.engine.llm import GenerateOutput
from tests.engines import FIXED, PerfectDrafter

PROMPT = torch.tensor([[150, 158, 222, 13, 59, 160, 163]])
NUM_TOKENS, DEPTH = 13, 4
DRAFTS: list[dict[str, Any]] = [
    {"max_depth": 0},
    FIXED | {"max_depth": DEPTH},
    FIXED | {"draft": "tree", "max_nodes": 24, "confidence": 0.0},
]


class Recorder(BaseStreamer):
    """Keeps the new tokens."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.has_prompt = False

    def put(self, value: Tensor) -> None:
        self.tokens += value.tolist() if self.has_prompt else []
        self.has_prompt = True

    def end(self) -> None:
        pass


@pytest.fixture(scope="module")
def llm(folder: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(folder, "deep_prefix")


@pytest.fixture(scope="module")
def full(llm: KangarooForCausalLM) -> list[int]:
    """What follows where nothing ends it: all different, so that each token can end it."""
    ids = llm.generate(PROMPT, max_new_tokens=NUM_TOKENS, eos_token_id=None, max_depth=0)
    tokens = torch.as_tensor(ids)[0, PROMPT.shape[1] :].tolist()
    assert len(set(tokens)) == NUM_TOKENS
    return tokens


@pytest.fixture
def perfect(monkeypatch: pytest.MonkeyPatch, full: list[int]) -> None:
    """Chains are what the target says: rounds of five tokens, cut wherever the sequence ends."""
    plain = drafting.chain_drafter
    tokens = PROMPT[0].tolist() + full

    def make(model: Any, adapter: Any, config: Any, **_: Any) -> Any:
        drafter = plain(model, adapter, config)
        return drafter if adapter is None else PerfectDrafter(model, adapter, config, tokens)

    monkeypatch.setattr(drafting, "chain_drafter", make)


def check(llm: KangarooForCausalLM, full: list[int], **options: Any) -> int:
    """How many tokens there were, whoever counts."""
    streamer = Recorder()
    options = {"max_new_tokens": NUM_TOKENS, "eos_token_id": None} | options
    output = llm.generate(PROMPT, streamer=streamer, return_dict_in_generate=True, **options)
    assert isinstance(output, GenerateOutput)
    assert output.sequences is not None
    assert output.speculation is not None
    ids, did = output.sequences[0, PROMPT.shape[1] :].tolist(), output.speculation
    assert ids == streamer.tokens == full[: len(ids)]
    assert did.num_tokens == len(ids)
    # Every round but the last has one token that no draft was accepted for.
    assert did.num_rounds - 1 <= did.num_tokens - did.num_accepted <= did.num_rounds
    assert sum(did.accepted_lens) == sum(did.drafted_lens) == did.num_rounds
    assert did.num_accepted <= did.num_drafted
    return len(ids)


@pytest.mark.usefixtures("perfect")
@pytest.mark.parametrize("draft", DRAFTS, ids=str)
def test_ids_stream_and_figures_end_together(
    llm: KangarooForCausalLM, full: list[int], draft: dict[str, Any]
) -> None:
    """By number, by token, by criterion and by text, at every offset of a round."""
    lengths = set()
    for count in range(1, NUM_TOKENS + 1):
        total = PROMPT.shape[1] + count
        assert check(llm, full, max_new_tokens=count, **draft) == count
        assert check(llm, full, eos_token_id=full[count - 1], **draft) == count
        ends = [lambda ids, scores, total=total: ids.shape[1] >= total]
        assert check(llm, full, stopping_criteria=ends, **draft) == count
        text = llm.tokenizer.decode(full[count - 1 : count + 1])
        for string in {text, text[1:], text[:1]} - {""}:
            if "\ufffd" in string:
                continue
            written = check(llm, full, stop_strings=string, **draft)
            assert string in llm.tokenizer.decode(full[:written])
            assert string not in llm.tokenizer.decode(full[: written - 1])
            lengths.add(written)
    assert len(lengths) > 2
