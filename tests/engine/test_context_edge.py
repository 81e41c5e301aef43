"""Near the end of the target's context: all of it can be used, and nothing runs over."""

from __future__ import annotations

from typing import Any

import pytest

from kangaroo.config import ADAPTER_KINDS, DraftConfig
from kangaroo.models.llama import Llama
from tests.engines import (
    SMALL,
    NoisyDrafter,
    PerfectDrafter,
    ScriptedBranches,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
)
from tests.factories import make_checkpoint

CONTEXT, PROMPT_LEN, DEPTH = 64, 30, 6  # the context is one chunk of the caches, to the last slot
DRAFTS: list[tuple[Any, dict[str, Any]]] = [
    (PerfectDrafter, {"max_depth": 40}),
    (NoisyDrafter, {"max_depth": DEPTH}),
    (
        ScriptedBranches,
        {"draft": "tree", "max_depth": 40, "max_nodes": 64, "draft_top_k": 4, "confidence": 0.0},
    ),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    overrides = SMALL | {"max_position_embeddings": CONTEXT}
    return load(make_checkpoint(tmp_path_factory.mktemp("target"), "llama", **overrides), "native")


@pytest.fixture(scope="module")
def full(model: Llama) -> list[int]:
    """A prompt and its continuation, as long as the context."""
    prompt = make_prompt(model, PROMPT_LEN)
    return prompt + autoregressive(model, prompt, CONTEXT - PROMPT_LEN).tokens


def check(model: Llama, full: list[int], prompt_len: int, total_len: int) -> None:
    for kind in ADAPTER_KINDS:
        for drafter, options in DRAFTS:
            config = DraftConfig(1, **options)
            made = drafter(model, make_adapter(model, kind, 1), config, full)
            run = decoder_of(made).run(full[:prompt_len], total_len - prompt_len)
            assert run.tokens == full[prompt_len:total_len]


@pytest.mark.parametrize("prompt_len", range(CONTEXT - DEPTH - 3, CONTEXT))
def test_prompts_that_nearly_fill_the_context(
    model: Llama, full: list[int], prompt_len: int
) -> None:
    """Drafts are deeper than what is left."""
    check(model, full, prompt_len, CONTEXT)


@pytest.mark.parametrize("room", range(DEPTH + 3))
def test_sequences_that_end_in_front_of_the_edge(model: Llama, full: list[int], room: int) -> None:
    check(model, full, PROMPT_LEN, CONTEXT - room)
