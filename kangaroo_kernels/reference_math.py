"""Maths shared, unchanged, by several reference implementations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kangaroo_kernels.draft_head import DraftChain, DraftHead
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.tree_attention import KV_CHUNK

# Library GEMMs choose their order of summation by the number of rows: always multiply this many.
ROW_TILE = 16
WIDE_ROWS = 4096


def tiled_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T in tiles of exactly ROW_TILE rows: [M, C], [O, C] -> [M, O]. A row's bits are its
    own.
    """
    if len(weight) < ROW_TILE:  # in so narrow a product libraries sum some rows in another order
        return tiled_linear(x, F.pad(weight, (0, 0, 0, ROW_TILE - len(weight))))[:, : len(weight)]
    padded = F.pad(x, (0, 0, 0, -len(x) % ROW_TILE))
    return torch.cat([F.linear(tile, weight) for tile in padded.split(ROW_TILE)])[: len(x)]


def wide_linear(x: Tensor, weight: Tensor) -> Tensor:
    """The same in float32 throughout; of the weight only a part is made wide at a time."""
    parts = [tiled_linear(x.float(), some.float()) for some in weight.split(WIDE_ROWS)]
    return torch.cat(parts, dim=1)


def rms_normalize(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, statistics in float32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def linear(
    x: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    norm_weight: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """residual + rms_norm(x) W^T + bias; see the contract of linear."""
    rows = x.flatten(0, 1)
    if norm_weight is not None:
        rows = rms_normalize(rows, norm_weight, eps)
    unrounded = out is not None and out.dtype != x.dtype
    result = (wide_linear if unrounded else tiled_linear)(rows, weight)
    result = result.view(*x.shape[:2], len(weight))
    if bias is not None:
        result = result + bias
    if residual is not None:
        result = residual + result
    return result if out is None else out.copy_(result)


def draft_logits(h: Tensor, head: DraftHead, norm_weight: Tensor, eps: float) -> Tensor:
    """See the contract of draft_logits."""
    rows = rms_normalize(h.flatten(0, 1), norm_weight, eps)
    weight, scale = head.weight, head.scale
    if head.token_ids is not None:
        ids = head.token_ids.long()
        weight, scale = weight[ids], None if scale is None else scale[ids]
    logits = wide_linear(rows, weight)
    if scale is not None:
        logits = logits * scale
    return logits.view(*h.shape[:2], head.num_ids)


def rank_tokens(
    h: Tensor, head: DraftHead, norm_weight: Tensor, eps: float, k: int
) -> tuple[Tensor, Tensor]:
    """The k best tokens and their probabilities; see the contract of topk_confidence."""
    logits = draft_logits(h, head, norm_weight, eps).flatten(0, 1)
    # What is no number, or -inf, ranks below all others.
    logits = logits.nan_to_num(torch.finfo(torch.float32).min, posinf=float("inf"))
    order = logits.sort(dim=-1, descending=True, stable=True).indices  # ties: the lowest first
    best = order[:, :k].contiguous()
    probabilities = logits.softmax(-1).gather(-1, best)
    tokens = best if head.token_ids is None else head.token_ids.long()[best]
    return tokens.view(*h.shape[:2], k), probabilities.contiguous().view(*h.shape[:2], k)


def append(chain: DraftChain, tokens: Tensor, confidence: Tensor) -> None:
    """tokens and confidence [B]: the chains' next nodes, where they have not stopped."""
    capacity = chain.tokens.shape[1]
    for b, (node, stopped) in enumerate(
        zip(chain.num_nodes.tolist(), chain.stopped.tolist(), strict=True)
    ):
        if node >= capacity:
            chain.stopped[b] = 1
        elif stopped == 0 and node > 0:
            chain.tokens[b, node] = tokens[b]
            chain.positions[b, node] = chain.positions[b, node - 1] + 1
            chain.num_nodes[b] = node + 1
            chain.stopped[b] = not (confidence[b] >= chain.threshold[b] and node + 1 < capacity)


def rotate(x: Tensor, rope: Tensor, positions: Tensor) -> Tensor:
    """x [B, N, H, D] rotated by `positions` [B, N] with `rope` [2, P, D / 2]."""
    cos, sin = rope[:, positions.long(), None]  # [B, N, 1, D / 2]
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def rope_append_kv(
    qkv: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    nodes: NodeBatch,
    rope: Tensor,
    *,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    """See the contract of rope_append_kv."""
    _, h_kv, _, head_dim = k_cache.shape
    heads = qkv.unflatten(-1, (-1, head_dim))  # [B, N, H_q + 2 H_kv, D]
    q, k, v = heads.split([heads.shape[2] - 2 * h_kv, h_kv, h_kv], dim=2)
    if q_norm is not None:
        q = rms_normalize(q, q_norm, eps)
    if k_norm is not None:
        k = rms_normalize(k, k_norm, eps)
    k = rotate(k, rope, nodes.positions)
    for b, committed in enumerate(nodes.cache_seqlens.tolist()):
        slots = slice(committed + nodes.first_node, committed + nodes.first_node + qkv.shape[1])
        k_cache[b, :, slots] = k[b].transpose(0, 1)
        v_cache[b, :, slots] = v[b].transpose(0, 1)
    return rotate(q, rope, nodes.positions)


def visible_slots(nodes: NodeBatch, b: int, num_slots: int) -> Tensor:
    """[N, num_slots] bool: which slots each node of sequence b attends to."""
    device = nodes.positions.device
    node = (
        torch.arange(num_slots, device=device) - nodes.cache_seqlens[b]
    )  # tree node in each slot; < 0: committed
    if nodes.ancestors is None:
        own = nodes.first_node + torch.arange(nodes.positions.shape[1], device=device)
        return node <= own[:, None]
    bits = (nodes.ancestors[b, :, None] >> node.clamp(0, 63)) & 1
    return (node < 0) | ((node < 64) & (bits == 1))


def visible(nodes: NodeBatch, num_slots: int) -> Tensor:
    """[B, N, num_slots] bool: the same for all sequences."""
    num_sequences = len(nodes.cache_seqlens)
    return torch.stack([visible_slots(nodes, b, num_slots) for b in range(num_sequences)])


def tree_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch, scale: float
) -> Tensor:
    """Online softmax over chunks of fixed place and size; see the contract of tree_attention."""
    out = torch.empty_like(q)
    last = nodes.first_node + q.shape[1]
    for b, committed in enumerate(nodes.cache_seqlens.tolist()):
        num_slots = -(-(committed + last) // KV_CHUNK) * KV_CHUNK
        visible = visible_slots(nodes, b, num_slots)
        for i in range(q.shape[1]):  # one row at a time: its sums may not depend on the others
            k, v = k_cache[b, :, :num_slots], v_cache[b, :, :num_slots]
            path_len = int(visible[i].sum())
            if nodes.ancestors is not None:
                path = visible[i].nonzero()[committed:, 0]
                k, v = in_path_order(k, committed, path), in_path_order(v, committed, path)
            out[b, i] = _attend(q[b, i], k, v, path_len, scale)
    return out


def in_path_order(rows: Tensor, committed: int, path: Tensor) -> Tensor:
    """A copy of rows [H, S, D] with those of `path` [P] behind the committed ones, as in a
    chain.
    """
    rows = rows.clone()
    rows[:, committed : committed + len(path)] = rows[:, path]
    return rows


def _attend(q: Tensor, k: Tensor, v: Tensor, num_visible: int, scale: float) -> Tensor:
    """One node: q [H_q, D], k and v [H_kv, num_slots, D], the first of which it sees -> [H_q,
    D].
    """
    h_kv, _, d = k.shape
    q = q.float().view(h_kv, -1, d) * scale  # [H_kv, G, D]
    top = q.new_full((*q.shape[:2], 1), float("-inf"))
    total, acc = torch.zeros_like(top), torch.zeros_like(q)
    seen = torch.arange(KV_CHUNK, device=q.device)
    for chunk in range(0, num_visible, KV_CHUNK):
        slots = slice(chunk, chunk + KV_CHUNK)
        hidden = seen >= num_visible - chunk
        scores = (q @ k[:, slots].float().mT).masked_fill(
            hidden, float("-inf")
        )  # [H_kv, G, KV_CHUNK]
        new_top = torch.maximum(top, scores.amax(-1, keepdim=True))
        weights, decay = (scores - new_top).exp(), (top - new_top).exp()
        total = total * decay + weights.sum(-1, keepdim=True)
        acc = acc * decay + weights @ v[:, slots].float().masked_fill(hidden[:, None], 0.0)
        top = new_top
    return (acc / total).view(-1, d).to(k.dtype)
