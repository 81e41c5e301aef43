"""`benchmarks/tilings.py`: every tiling that is timed is one of the same product."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from benchmarks import tilings
from kangaroo_kernels import testing
from kangaroo_kernels.triton_gemm import Epilogue, Tiling, product
from tests.kernels import naive

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="multiplies in the interpreter"),
    pytest.mark.usefixtures("faithful_interpreter"),
]


@pytest.mark.parametrize("gated", [False, True])
def test_all_are_the_same_product(gated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    num_out, width = 48, 1100
    x, weight, out = tilings.inputs(3, num_out, width, gated)
    found = tilings.tilings(num_out, width, gated)
    assert found[0] == Tiling.of(num_out, width, 2, gated=gated)
    assert len(set(found)) == len(found) > 8
    for tiling in found:
        monkeypatch.setattr(Tiling, "of", lambda *_, tiling=tiling, **__: tiling)
        product(x[None], weight, Epilogue(gated=gated), out.fill_(torch.nan)[None])
        parts = [x[None], *weight.chunk(2 if gated else 1)]
        exact, low = (
            of_gates(*[naive.linear(a, w, None, None, None, eps=0.0) for w in rest])
            for a, *rest in (testing.widen(*parts), parts)
        )
        testing.assert_within_budget(out[None], exact, low)


def of_gates(gate: torch.Tensor, up: torch.Tensor | None = None) -> torch.Tensor:
    return gate if up is None else gate / (1 + (-gate).exp()) * up
