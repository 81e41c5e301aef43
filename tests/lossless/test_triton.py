"""The whole engine on Triton: the reference's tokens, and L1, in the interpreter."""

from __future__ import annotations

import pytest
import torch

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo_kernels import testing
from tests.engines import NoisyDrafter, autoregressive, decoder_of, load, make_adapter, make_prompt
from tests.factories import make_checkpoint

SMALLEST = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "max_position_embeddings": 128,
}
PROMPT_LEN, NUM_TOKENS, DEPTH = 58, 12, 3  # over the end of a chunk

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="interprets, and Triton compiles where there is a GPU"
)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_tokens_of_the_reference_and_bits_of_plain_decoding(
    tmp_path_factory: pytest.TempPathFactory, kind: AdapterKind
) -> None:
    path = make_checkpoint(tmp_path_factory.mktemp("target"), "qwen3", **SMALLEST)
    model = load(path, "triton")
    prompt = make_prompt(model, PROMPT_LEN)
    plain = autoregressive(model, prompt, NUM_TOKENS)
    assert plain.tokens == autoregressive(load(path), prompt, NUM_TOKENS).tokens
    config = DraftConfig(exit_layer=1, max_depth=DEPTH)
    drafter = NoisyDrafter(model, make_adapter(model, kind, 1), config, prompt + plain.tokens)
    run = decoder_of(drafter).run(prompt, NUM_TOKENS)
    assert run.tokens == plain.tokens
    assert 0 < run.num_accepted < run.num_drafted
    testing.assert_same_bits(run.logits, plain.logits)
