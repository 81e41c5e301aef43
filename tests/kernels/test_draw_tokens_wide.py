"""draw_tokens of as many logits as a model has, as its definition says; what is just kept, and what
is refused.
"""

from __future__ import annotations

import math

import pytest
import torch

from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.draw_tokens import DrawTokens
from kangaroo_kernels.kernel_set import Backend, Target, load_impl
from tests.kernels import laws
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
    """The lowest id first, and nothing that is no token, where tiles of 64 are not full."""
    inputs = inputs_of(1, 1, 65, PLAIN._replace(top_k=1))
    inputs["logits"][0, 0, 64] = 100.0
    ids = torch.arange(5, 70, dtype=torch.int32)
    tokens, shares = draw_tokens(**inputs, k=3, token_ids=ids)
    assert tokens.tolist() == [[[69, 5, 6]]]
    assert shares.tolist() == [[[1.0, 0.0, 0.0]]]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("positions", [-1, 0, 0]),
        ("positions", [0, 0, 2**31 - 1]),
        ("token_ids", [0, 2, 2]),
        ("token_ids", [-1, 2, 3]),
    ],
)
def test_impossible_places(fast_draw_tokens: DrawTokens, name: str, bad: list[int]) -> None:
    laws.needs_values_on_the_host()
    inputs = inputs_of(1, 3, 3, PLAIN)
    values = torch.tensor(bad, dtype=torch.int32)
    values = values[None] if name == "positions" else values
    laws.check_refusal(fast_draw_tokens, inputs, name, values)


def test_a_chain_compares_the_share_that_is_returned(draw_tokens: DrawTokens) -> None:
    """Rounded to float32, up or down: as large as the threshold is large enough."""
    inputs = inputs_of(9, 1, 40, PLAIN)
    chain = DraftChain.of_roots(9, 5, 0.0, torch.get_default_device())
    chain.threshold.copy_(draw_tokens(**inputs)[1][:, 0, 0])
    draw_tokens(**inputs, chain=chain)
    assert chain.stopped.tolist() == [0] * 9


def test_bad_chain(fast_draw_tokens: DrawTokens) -> None:
    chain = DraftChain.of_roots(3, 5, 0.0, torch.get_default_device())
    inputs = inputs_of(2, 3, 40, PLAIN)
    laws.check_refusal(fast_draw_tokens, inputs, "chain", chain, says="chain.tokens")
