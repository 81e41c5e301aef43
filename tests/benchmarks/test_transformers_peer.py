"""`benchmarks/transformers_peer.py`: the same weights in the same memory write the same tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.transformers_peer import FirstToken, Transformers, shared, shared_draft
from kangaroo.engine.decode import Decoder
from kangaroo.engine.state import Request
from kangaroo.evals.bits import plain
from kangaroo.evals.paired import run_once
from kangaroo_kernels import UnsupportedError
from tests.benchmarks.tiny import made
from tests.engines import make_prompt

NEW_TOKENS, DEPTH = 12, 5


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_target_writes_our_tokens(family: str) -> None:
    ours = made(family=family, tied=family == "llama")
    prompt = make_prompt(ours.model, 9)
    run = Transformers(shared(ours), NEW_TOKENS)(prompt)
    assert run.token_ids == plain(ours.model, prompt, NEW_TOKENS).tokens
    assert run.decode_s > 0 < run.prefill_s


def test_the_memory_is_shared() -> None:
    ours = made()
    theirs, weights = shared(ours), ours.model.weights
    layer = theirs.model.layers[1]
    assert layer.self_attn.q_proj.weight.data_ptr() == weights.layers[1].qkv.data_ptr()
    assert layer.mlp.down_proj.weight.data_ptr() == weights.layers[1].down.data_ptr()
    assert theirs.lm_head.weight.data_ptr() == weights.lm_head.data_ptr()


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_draft_says_what_ours_drafts(family: str) -> None:
    ours = made(family=family, tied=family == "llama")
    prompt = make_prompt(ours.model, 9)
    draft = ours.llm.draft_config(max_depth=DEPTH, confidence=0.0)
    batch = ours.llm.batch(1, 64, max_depth=DEPTH, confidence=0.0)
    decoder = Decoder(ours.model, batch.decoder.drafter, draft)
    with torch.inference_mode():
        state = decoder.prefill(Request(prompt, NEW_TOKENS))
        [tree] = decoder.drafter.draft(state, [DEPTH])
    assert Transformers(shared_draft(ours), DEPTH)(prompt).token_ids == tree.tokens[1:]


def test_assisted_decoding_writes_the_same_tokens() -> None:
    ours = made()
    prompt = make_prompt(ours.model, 9)
    assisted = Transformers(shared(ours), NEW_TOKENS, assistant=shared_draft(ours))
    expected = run_once(ours.llm, prompt, max_new_tokens=NEW_TOKENS, max_depth=0)
    assert assisted(prompt).token_ids == expected.token_ids


def test_the_first_tokens_are_counted() -> None:
    """Assisted decoding brings several at once."""
    first = FirstToken()
    for count in (9, 3, 2):
        first.put(torch.zeros(count))
    assert (first.num_first, first.at_s > 0) == (3, True)


def test_an_adapter_that_is_no_layer_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="deep_prefix adapter is no layer"):
        shared_draft(made("deep_prefix"))
    ours = made()
    other = replace(ours.adapter.config, rms_norm_eps=1e-3)
    ours.adapter.config = other
    with pytest.raises(UnsupportedError, match="attention is not that of the target"):
        shared_draft(ours)
