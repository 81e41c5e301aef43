"""Definition of adapter_refresh, in plain PyTorch. Any device."""

import torch
from torch import Tensor

from kangaroo_kernels.adapter_weights import RefreshWeights
from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.reference_math import linear, rms_normalize, rope_append_kv


def unsupported(target: Target) -> str | None:
    return None


def adapter_refresh(
    states: tuple[Tensor, Tensor, Tensor],
    weights: RefreshWeights,
    k_cache: Tensor,
    v_cache: Tensor,
    nodes: NodeBatch,
    rope: Tensor,
    *,
    eps: float,
) -> None:
    normed = [rms_normalize(h, norm, eps) for h, norm in zip(states, weights[:3], strict=True)]
    rows = linear(torch.cat(normed, dim=-1), weights.deep_kv)
    rope_append_kv(rows, k_cache, v_cache, nodes, rope)
