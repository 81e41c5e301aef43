"""The adapter on unverified nodes in Triton, shared by adapter_step and draft_step."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo_kernels.adapter_weights import StepWeights
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.triton_attention import attend
from kangaroo_kernels.triton_gemm import Epilogue, product
from kangaroo_kernels.triton_norm import Then, Weighed, in_front
from kangaroo_kernels.triton_projection import project_and_append


def adapted(
    h: Tensor,
    ready: Weighed | None,
    weights: StepWeights,
    caches: tuple[Tensor, Tensor],
    nodes: NodeBatch,
    rope: Tensor,
    *,
    eps: float,
    then: Then | None = None,
) -> Tensor:
    """What adapter_step gives; `ready` is what has been made of h [B, N, C] for its norm, `then` of
    Epilogue. Four launches: projection, rotation and append; attention (two); output projection and
    residual. One more without `ready`, and where the last sum is split: few outputs of many
    columns. Checks nothing.
    """
    out, head_dim = torch.empty_like(h), caches[0].shape[-1]
    if h.numel() == 0:
        return out
    q = h.new_empty(*h.shape[:2], weights.o.shape[1] // head_dim, head_dim)
    rows = ready or in_front(h, weights.input_norm, eps)
    project_and_append(rows, weights.qkv, q, caches, nodes, rope, eps=eps)
    heads = attend(q, *caches, nodes, head_dim**-0.5)
    product(heads.flatten(2), weights.o, Epilogue(residual=h, then=then), out)
    return out
