"""Norms cut in two: who makes rows leaves what a launch of its own would."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from kangaroo_kernels import testing
from tests.kernels import naive

pytestmark = [
    pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed"),
    *([pytest.mark.gpu] if torch.cuda.is_available() else []),
]


@pytest.mark.parametrize("num_rows", [1, 17])
@pytest.mark.parametrize(
    ("width", "num_out"), [(64, 64), (40, 37), (33, 1), (4096, 40), (16, 4200)], ids=str
)
def test_rows_made_ready_by_the_product(width: int, num_out: int, num_rows: int) -> None:
    """Whether its sum is split (4096 columns, few outputs) or not; the result itself stays."""
    from kangaroo_kernels.triton_gemm import Epilogue, Tiling, product
    from kangaroo_kernels.triton_norm import new_weighed, weighed

    assert (Tiling.of(num_out, width, 2).split_k > 1) == (width == 4096)
    dtype = torch.bfloat16
    x, residual = (torch.randn(1, num_rows, size).to(dtype) for size in (width, num_out))
    weight, norm = testing.random_weight(num_out, width, dtype), torch.randn(num_out).to(dtype)
    alone, out = torch.empty_like(residual), torch.empty_like(residual)
    product(x, weight, Epilogue(residual=residual), alone)
    ready = new_weighed(out)
    product(x, weight, Epilogue(residual=residual, then=(norm, ready)), out)
    testing.assert_same_bits(out, alone)
    for found, expected in zip(ready, weighed(out, norm), strict=True):
        testing.assert_same_bits(found, expected)
    exact = out.double().square().sum(-1).flatten()
    torch.testing.assert_close(ready.squares.sum(-1).double(), exact, rtol=1e-5, atol=0)
    testing.assert_same_bits(ready.rows, (out.float() * norm.float()).to(dtype))


def test_norms_of_rows_wider_than_what_registers_hold() -> None:
    from kangaroo_kernels.linear.triton_kernel import linear
    from kangaroo_kernels.triton_norm import SQUARES, squares_block

    width, num_out = 5000, 3
    assert squares_block(width) * SQUARES.value < width
    x, weight, norm = (torch.randn(n, width) for n in (2, num_out, 1))
    x[:, -800:] *= 9  # what is left out would be missed
    given = [t.bfloat16() for t in (x[None], weight, norm[0])]
    found = linear(given[0], given[1], norm_weight=given[2], eps=1e-5)
    exact = naive.linear(*testing.widen(*given[:2], None, given[2], None), eps=1e-5)
    low = naive.linear(*given[:2], None, given[2], None, eps=1e-5)
    testing.assert_within_budget(found, exact, low)
