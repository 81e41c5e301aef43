"""Definition of adapter_step, in plain PyTorch. Any device."""

from torch import Tensor

from kangaroo_kernels.adapter_weights import StepWeights
from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.reference_math import linear, rope_append_kv, tree_attention


def unsupported(target: Target) -> str | None:
    return None


def adapter_step(
    h: Tensor,
    weights: StepWeights,
    k_cache: Tensor,
    v_cache: Tensor,
    nodes: NodeBatch,
    rope: Tensor,
    *,
    eps: float,
) -> Tensor:
    qkv = linear(h, weights.qkv, norm_weight=weights.input_norm, eps=eps)
    q = rope_append_kv(qkv, k_cache, v_cache, nodes, rope)
    heads = tree_attention(q, k_cache, v_cache, nodes, k_cache.shape[-1] ** -0.5)
    return linear(heads.flatten(2), weights.o, residual=h)
