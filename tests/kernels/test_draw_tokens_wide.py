"""draw_tokens of as many logits as a model has, as its definition says; what is just kept."""

from __future__ import annotations

import math

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


HALF = 1 / math.log(2)  # the temperature at which 1 less in a logit is half the weight
EDGES = {
    "next to the best": ([1.0, 1 + 2**-23], PLAIN._replace(top_k=1), 1),
    "just enough": ([1.0, 0.0, 0.0], PLAIN._replace(temperature=HALF, top_p=0.5), 1),
    "just too little": ([1.0, 0.0, 0.0], PLAIN._replace(temperature=HALF, top_p=0.501), 3),
    "many alike": ([1.0] * 5 + [0.0] * 595, PLAIN._replace(top_k=6, top_p=0.0245), 600),
}


@pytest.mark.parametrize("name", EDGES)
def test_what_is_just_kept(draw_tokens: DrawTokens, name: str) -> None:
    row, draw, num_kept = EDGES[name]
    k = min(len(row), 16)
    inputs = inputs_of(1, 1, len(row), draw) | {"logits": torch.tensor([[row]])}
    _, shares = draw_tokens(**inputs, k=k)
    assert (shares > 0).sum() == min(k, num_kept)


def test_what_is_not_kept_comes_last(draw_tokens: DrawTokens) -> None:
    """The lowest id first, and nothing that is no token."""
    inputs = inputs_of(1, 1, 3, PLAIN._replace(top_k=1))
    inputs["logits"][0, 0] = torch.tensor([0.0, 2.0, 1.0])
    tokens, shares = draw_tokens(**inputs, k=3, token_ids=torch.tensor([5, 9, 11]).int())
    assert tokens.tolist() == [[[9, 5, 11]]]
    assert shares.tolist() == [[[1.0, 0.0, 0.0]]]
