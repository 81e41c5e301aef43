"""The whole engine on a GPU: speculation changes no bit of the logits, in any dtype."""

from __future__ import annotations

import pytest
import torch

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo_kernels import testing
from tests.engines import NoisyDrafter, autoregressive, decoder_of, load, make_adapter, make_prompt
from tests.factories import FAMILIES, make_checkpoint

pytestmark = pytest.mark.gpu

NUM_TOKENS, PROMPT_LEN = 200, 50


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_bits_of_plain_decoding(
    tmp_path_factory: pytest.TempPathFactory, family: str, dtype: torch.dtype
) -> None:
    with torch.device("cpu"):  # what is not said to be elsewhere
        path = make_checkpoint(tmp_path_factory.mktemp("target"), family)
        model = load(path, "triton", dtype, torch.device("cuda"))
        prompt = make_prompt(model, PROMPT_LEN)
        plain = autoregressive(model, prompt, NUM_TOKENS)
        if dtype == torch.float32:
            assert plain.tokens == autoregressive(load(path), prompt, NUM_TOKENS).tokens
        kinds: list[AdapterKind] = list(ADAPTER_KINDS)
        for kind in kinds:
            for max_depth in (2, 4, 6):
                config = DraftConfig(exit_layer=1, max_depth=max_depth)
                drafter = NoisyDrafter(
                    model, make_adapter(model, kind, 1), config, prompt + plain.tokens
                )
                run = decoder_of(drafter).run(prompt, NUM_TOKENS)
                assert run.tokens == plain.tokens
                assert 0 < run.num_accepted < run.num_drafted
                testing.assert_same_bits(run.logits, plain.logits)
