"""tree_attention in Triton: two launches, see `kangaroo_kernels.triton_attention`."""

from torch import Tensor

from kangaroo_kernels.checks import require_attention
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.triton_attention import attend, unsupported

__all__ = ["tree_attention", "unsupported"]


def tree_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch, scale: float
) -> Tensor:
    require_attention(q, k_cache, v_cache, nodes)
    return attend(q, k_cache, v_cache, nodes, scale)
