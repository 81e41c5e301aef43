"""embedding: every implementation copies rows, and reads nothing outside the vocabulary."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kangaroo_kernels import testing
from kangaroo_kernels.embedding import Embedding
from tests.kernels import laws


@pytest.mark.parametrize("width", [1, 40, 193])
@pytest.mark.parametrize(("batch", "num_nodes"), [(1, 1), (2, 3), (1, 17), (3, 0)])
def test_rows_are_copied(
    embedding: Embedding, dtype: torch.dtype, width: int, batch: int, num_nodes: int
) -> None:
    weight = torch.randn(37, width).to(dtype)
    weight[5] = torch.nan
    tokens = torch.randint(37, (batch, num_nodes))
    if tokens.numel():
        tokens[-1, -1] = 36
    out = embedding(tokens, weight)
    assert out.shape == (batch, num_nodes, width)
    for b, n in torch.cartesian_prod(torch.arange(batch), torch.arange(num_nodes)).tolist():
        testing.assert_same_bits(out[b, n], weight[int(tokens[b, n])])


@pytest.mark.parametrize("token", [-1, 37, 2**40])
def test_tokens_outside_the_vocabulary(fast_embedding: Embedding, token: int) -> None:
    """Refused where the host sees them; else a row of zeros, and memory stays whole."""
    weight = torch.randn(37, 40)
    tokens = torch.tensor([[3, token]])
    if weight.is_cpu:
        inputs = {"tokens": torch.tensor([[3, 4]]), "weight": weight}
        laws.check_refusal(fast_embedding, inputs, "tokens", tokens)
    else:
        testing.assert_same_bits(fast_embedding(tokens, weight)[0, 1], torch.zeros(40))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("tokens", torch.zeros(3, dtype=torch.int64)),
        ("tokens", torch.zeros(1, 3, dtype=torch.int32)),
        ("tokens", torch.zeros(3, 2, dtype=torch.int64).T),
        ("weight", torch.zeros(40)),
        ("weight", torch.zeros(40, 37).T),
    ],
)
def test_bad_inputs(fast_embedding: Embedding, name: str, bad: Tensor) -> None:
    inputs = {"tokens": torch.zeros(1, 3, dtype=torch.int64), "weight": torch.zeros(37, 40)}
    laws.check_refusal(fast_embedding, inputs, name, bad)
