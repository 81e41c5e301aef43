"""On a GPU no op waits for the host, and a captured op replays on whatever its inputs hold then."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from kangaroo_kernels import testing
from tests.kernels.test_torch_ops import op_named, samples

pytestmark = pytest.mark.gpu


def cloned(arguments: Any) -> Any:
    return tree_map_only(Tensor, Tensor.clone, arguments)


def tensors(*values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", list(samples(torch.float32)))
def test_capture_and_replay(name: str, dtype: torch.dtype) -> None:
    """Results and mutated arguments have the bits of an eager call on the same values."""
    op = op_named(name)
    first, second = (samples(dtype)[name] for _ in range(2))
    args, kwargs = cloned(first)
    op(*cloned(args), **cloned(kwargs))  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = op(*args, **kwargs)
    for inputs in (first, second):
        eager_args, eager_kwargs = cloned(inputs)
        torch.cuda.set_sync_debug_mode("error")
        eager_results = op(*eager_args, **eager_kwargs)
        torch.cuda.set_sync_debug_mode("default")
        for static, value in zip(tensors(args, kwargs), tensors(inputs), strict=True):
            static.copy_(value)
        graph.replay()
        replayed = tensors(results, args, kwargs)
        eager = tensors(eager_results, eager_args, eager_kwargs)
        for ours, expected in zip(replayed, eager, strict=True):
            testing.assert_same_bits(ours, expected)
