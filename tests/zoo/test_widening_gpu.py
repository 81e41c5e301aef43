"""Widened on a GPU: extra numbers are drawn there, and change nothing."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from kangaroo import KangarooForCausalLM
from kangaroo.evals.prompts import held_out_prompts
from kangaroo.zoo.shapes import LLAMA_1B
from kangaroo.zoo.widening import widened
from tests.zoo.small import say

pytestmark = pytest.mark.gpu


def test_tiny_py_at_the_shape_of_llama_1b() -> None:
    with torch.device("cpu"):  # what is not said to be elsewhere
        small = KangarooForCausalLM.from_pretrained("tiny-py")
        cuda = torch.device("cuda")
        model, adapter = widened("tiny-py", None, LLAMA_1B, torch.float32, cuda)
        wide = KangarooForCausalLM(model, adapter, small.path, GenerationConfig())
        for prompt in held_out_prompts(small.tokenizer, 3, 80).values():
            for draft in ("off", "chain", "tree"):
                ours, theirs = (say(llm, prompt, 64, draft=draft) for llm in (small, wide))
                assert theirs.tokens == ours.tokens
                assert theirs.num_accepted == ours.num_accepted
