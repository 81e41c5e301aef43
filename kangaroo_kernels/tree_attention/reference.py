"""Definition of tree_attention, in plain PyTorch: online softmax over chunks of fixed place and
size. Any device.
"""

import torch
from torch import Tensor

from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.tree_attention import KV_CHUNK


def unsupported(target: Target) -> str | None:
    return None


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


def tree_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, nodes: NodeBatch, scale: float
) -> Tensor:
    out = torch.empty_like(q)
    last = nodes.first_node + q.shape[1]
    for b, committed in enumerate(nodes.cache_seqlens.tolist()):
        num_slots = -(-(committed + last) // KV_CHUNK) * KV_CHUNK
        visible = visible_slots(nodes, b, num_slots)
        for i in range(q.shape[1]):  # one row at a time: its sums may not depend on the others
            out[b, i] = _attend(
                q[b, i], k_cache[b, :, :num_slots], v_cache[b, :, :num_slots], visible[i], scale
            )
    return out


def _attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float) -> Tensor:
    """One node: q [H_q, D], k and v [H_kv, num_slots, D], visible [num_slots] -> [H_q, D]."""
    h_kv, _, d = k.shape
    q = q.float().view(h_kv, -1, d) * scale  # [H_kv, G, D]
    top = q.new_full((*q.shape[:2], 1), float("-inf"))
    total, acc = torch.zeros_like(top), torch.zeros_like(q)
    for chunk in range(0, k.shape[1], KV_CHUNK):
        slots = slice(chunk, chunk + KV_CHUNK)
        seen = visible[slots]
        if not seen.any():
            continue
        scores = (q @ k[:, slots].float().mT).masked_fill(
            ~seen, float("-inf")
        )  # [H_kv, G, KV_CHUNK]
        new_top = torch.maximum(top, scores.amax(-1, keepdim=True))
        weights, decay = (scores - new_top).exp(), (top - new_top).exp()
        total = total * decay + weights.sum(-1, keepdim=True)
        acc = acc * decay + weights @ v[:, slots].float().masked_fill(~seen[:, None], 0.0)
        top = new_top
    return (acc / total).view(-1, d).to(k.dtype)
