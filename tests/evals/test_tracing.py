"""What a trace says any rule would do is what decoding by that rule does, draft by draft."""

from __future__ import annotations

from typing import Any

import pytest

from kangaroo import KangarooForCausalLM
from kangaroo.config import AdapterKind
from kangaroo.evals.prompts import BUILT_IN
from kangaroo.evals.tracing import greedy_trace
from kangaroo.train.simulate import replay, simulate_cr
from tests.engines import QUICK_KINDS

DEPTH, NUM_TOKENS = 5, 40
RULES = [(5, 0.0), (1, 0.0), (3, 0.3), (5, 0.6), (4, 0.9), (5, 1.0)]


@pytest.mark.parametrize("kind", QUICK_KINDS)
def test_replays_are_decoding(kind: AdapterKind) -> None:
    """With tiny-py: every round drafts as many tokens, so every CR is the same; the second
    continuation ends early, where decoding may draft behind the end, and no round more.
    """
    llm = KangarooForCausalLM.from_pretrained("tiny-py", kind)
    prompts = [prompt.ids(llm.tokenizer) for prompt in BUILT_IN[:2]]
    given: dict[str, Any] = {"max_new_tokens": NUM_TOKENS, "adaptive": False}
    eos = llm.rounds(prompts[1], **given, eos_token_id=None)
    last = [token for each in eos for token in each.tokens][25]
    assert llm.adapter is not None
    for ends in ([], [last]):
        trace = greedy_trace(
            llm.model,
            llm.adapter,
            prompts,
            NUM_TOKENS,
            max_depth=DEPTH,
            eos_ids=frozenset(ends),
        )
        assert (trace.num_slots == (NUM_TOKENS, NUM_TOKENS)) == (not ends)
        seen = set()
        for max_depth, confidence in RULES:
            rule = given | {"max_depth": max_depth, "confidence": confidence}
            rounds = [llm.rounds(ids, **rule, eos_token_id=ends or None) for ids in prompts]
            done = [each for sequence in rounds for each in sequence]
            ratio = sum(len(each.tokens) for each in done) / len(done)
            assert simulate_cr(trace, confidence, max_depth)[0] == ratio
            if not ends:
                assert replay(trace, confidence, max_depth) == [each.num_drafted for each in done]
            seen.add(ratio)
        assert len(seen) > 2
