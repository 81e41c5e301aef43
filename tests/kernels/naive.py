"""The maths of the ops, written independently of the references, in the dtype of its arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from kangaroo_kernels.adapter_weights import RefreshWeights, StepWeights
from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.nodes import NodeBatch


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None,
    residual: Tensor | None,
    *,
    eps: float,
) -> Tensor:
    rows = x if norm_weight is None else rms_norm(x, norm_weight, eps)
    out = torch.einsum("bnc,oc->bno", rows, weight)
    out = out if bias is None else out + bias
    return out if residual is None else out + residual


def gated_mlp(x: Tensor, gate_up: Tensor, down: Tensor, norm_weight: Tensor, eps: float) -> Tensor:
    half = len(gate_up) // 2
    rows = rms_norm(x, norm_weight, eps)
    gate = torch.einsum("bnc,fc->bnf", rows, gate_up[:half])
    up = torch.einsum("bnc,fc->bnf", rows, gate_up[half:])
    return x + torch.einsum("bnf,cf->bnc", gate / (1 + (-gate).exp()) * up, down)


def draft_logits(h: Tensor, head: DraftHead, norm_weight: Tensor, eps: float) -> Tensor:
    """[B, N, V]; -inf where a token may not be drafted."""
    logits = torch.einsum("bnc,vc->bnv", rms_norm(h, norm_weight, eps), head.weight.to(h.dtype))
    if head.scale is not None:
        logits = logits * head.scale.to(h.dtype)
    if head.token_ids is not None:
        drafted = torch.isin(torch.arange(len(head.weight)), head.token_ids)
        logits = logits.masked_fill(~drafted, float("-inf"))
    return logits


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """heads [B, N, H, D] as complex numbers (x[d], x[d + D/2]) times cos + i sin [B, N, D/2]."""
    half = heads.shape[-1] // 2
    out = torch.zeros_like(heads)
    for b, n in torch.cartesian_prod(*(torch.arange(size) for size in heads.shape[:2])).tolist():
        real, imag = heads[b, n, :, :half], heads[b, n, :, half:]
        out[b, n, :, :half] = real * cos[b, n] - imag * sin[b, n]
        out[b, n, :, half:] = real * sin[b, n] + imag * cos[b, n]
    return out


def visible_slots(nodes: NodeBatch, b: int, node: int) -> list[int]:
    """The slots that node `node` of the call sees in sequence b, by the words of NodeBatch."""
    committed = int(nodes.cache_seqlens[b])
    own = nodes.first_node + node
    if nodes.ancestors is None:
        return list(range(committed + own + 1))
    mask = int(nodes.ancestors[b, node]) % 2**64
    return [*range(committed), *(committed + j for j in range(64) if mask >> j & 1)]


def tree_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch, scale: float
) -> Tensor:
    """One masked softmax over all slots of the cache."""
    out = torch.zeros_like(q)
    group = q.shape[2] // k_cache.shape[1]
    for b in range(q.shape[0]):
        hidden = torch.ones(q.shape[1], k_cache.shape[2], dtype=torch.bool)
        for node in range(q.shape[1]):
            hidden[node, visible_slots(nodes, b, node)] = False
        keys, values = (cache[b].repeat_interleave(group, 0) for cache in (k_cache, v_cache))
        scores = torch.einsum("nhd,hsd->hns", q[b], keys) * scale
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        out[b] = torch.einsum("hns,hsd->nhd", weights, values)
    return out


def accepted_path(choices: list[int], tokens: list[int], parents: list[int]) -> list[int]:
    """The walk of verify_tree, by recursion over children."""

    def walk(node: int) -> list[int]:
        children = [i for i, parent in enumerate(parents) if parent == node]
        matches = [i for i in children if tokens[i] == choices[node]]
        return [node, *walk(matches[0])] if matches else [node]

    return walk(0)


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
    """In place as the op is."""
    h_kv, head_dim = k_cache.shape[1], k_cache.shape[3]
    qkv = linear(h, weights.qkv, None, weights.input_norm, None, eps=eps)
    heads = qkv.unflatten(-1, (-1, head_dim))
    q, k, v = heads[:, :, : -2 * h_kv], heads[:, :, -2 * h_kv : -h_kv], heads[:, :, -h_kv:]
    cos, sin = rope[:, nodes.positions.long()].to(h.dtype)
    write(k_cache, rotate(k, cos, sin), nodes)
    write(v_cache, v, nodes)
    out = tree_attention(rotate(q, cos, sin), k_cache, v_cache, nodes, head_dim**-0.5)
    return linear(out.flatten(2), weights.o, None, None, h, eps=0.0)


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
    """In place as the op is."""
    h_kv, head_dim = k_cache.shape[1], k_cache.shape[3]
    norms = weights.input_norm, weights.deep_norm, weights.successor_norm
    normed = [rms_norm(h, norm, eps) for h, norm in zip(states, norms, strict=True)]
    rows = torch.einsum("bnc,oc->bno", torch.cat(normed, -1), weights.deep_kv)
    heads = rows.unflatten(-1, (-1, head_dim))
    cos, sin = rope[:, nodes.positions.long()].to(rows.dtype)
    write(k_cache, rotate(heads[:, :, :h_kv], cos, sin), nodes)
    write(v_cache, heads[:, :, h_kv:], nodes)


def write(cache: Tensor, rows: Tensor, nodes: NodeBatch) -> None:
    """rows [B, N, H, D] to the slots of the nodes."""
    for b, committed in enumerate(nodes.cache_seqlens.tolist()):
        for node in range(rows.shape[1]):
            cache[b, :, committed + nodes.first_node + node] = rows[b, node]
