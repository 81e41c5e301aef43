"""draw_tokens of as many logits as a model has: as the definition says."""

from __future__ import annotations

import pytest
import torch

from kangaroo_kernels.draw_tokens import DrawTokens
from kangaroo_kernels.kernel_set import Backend, Target, load_impl
from tests.kernels.test_draw_tokens import PLAIN, inputs_of

WIDE = {
    "top-k": (3.0, PLAIN._replace(top_k=50)),
    "top-p": (3.0, PLAIN._replace(top_p=0.9)),
    "hot": (9.0, PLAIN._replace(temperature=3.0, top_p=0.9)),
    "both": (3.0, PLAIN._replace(top_k=50, top_p=0.9)),
    "top-k of most": (3.0, PLAIN._replace(top_k=9000, top_p=0.99)),
    "top-p of most": (0.3, PLAIN._replace(top_p=0.999)),
    "alike": (0.0, PLAIN._replace(top_k=50, top_p=0.5)),
}


@pytest.mark.parametrize("name", WIDE)
def test_large_vocabulary(fast_draw_tokens: DrawTokens, name: str) -> None:
    """Where few tokens are kept and where many are."""
    scale, draw = WIDE[name]
    inputs = inputs_of(1, 1, 20_003, draw)
    inputs["logits"] *= scale / 3
    tokens, shares = fast_draw_tokens(**inputs, k=16)
    definition = load_impl(
        "draw_tokens", Backend.REFERENCE, Target(tokens.device, torch.float32, 64)
    )
    expected = definition(**inputs, k=16)
    assert tokens.equal(expected[0])
    torch.testing.assert_close(shares, expected[1], rtol=2**-23, atol=0.0)
