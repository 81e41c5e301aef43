"""What others offer for the same work, where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Setting
from kangaroo_kernels.draws import Draw
from kangaroo_kernels.reference_math import visible
from kangaroo_kernels.testing import AttentionInputs
from kangaroo_kernels.tree_attention import KV_CHUNK
from kangaroo_kernels.tree_attention.library import grouped_mask, grouped_sdpa

PACKAGES = {"flash-attn": "flash_attn", "FlashInfer": "flashinfer", "Liger": "liger_kernel"}
Peers = dict[str, Callable[..., object]]


def absent() -> list[str]:
    """Peers that are not installed here."""
    return [name for name, module in PACKAGES.items() if not find_spec(module)]


def with_compiled(setting: Setting, eager: Callable[..., Any]) -> Peers:
    """`eager` by PyTorch's libraries, and as torch.compile makes it."""
    peers: Peers = {"torch": eager}
    if setting.compiled:
        peers["torch.compile"] = torch.compile(
            eager, mode="max-autotune-no-cudagraphs", dynamic=False
        )
    return peers


def rms_norm_peers(setting: Setting, eps: float) -> Peers:
    """Norms of x [B, N, C] by weight [C]."""
    peers: Peers = {"torch": lambda x, weight: F.rms_norm(x, weight.shape, weight, eps)}
    if setting.device.type == "cuda" and find_spec(PACKAGES["Liger"]):
        from liger_kernel.ops.rms_norm import LigerRMSNormFunction

        peers["Liger"] = lambda x, weight: LigerRMSNormFunction.apply(x, weight, eps)
    return peers


def sampling_peers(setting: Setting, draw: Draw) -> Peers:
    """Of logits [1, N, V]: temperature, top-k, then top-p of what it left, and a token of each."""
    if setting.device.type != "cuda" or not find_spec(PACKAGES["FlashInfer"]):
        return {}
    from flashinfer.sampling import top_k_top_p_sampling_from_logits as sample

    def run(logits: Tensor, *_: Any) -> object:
        return sample(
            logits[0] / draw.temperature, draw.top_k, draw.top_p, filter_apply_order="top_k_first"
        )

    return {"FlashInfer": run}


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


def rope_append(rope: Tensor, num_nodes: int, dtype: torch.dtype) -> Callable[..., Tensor]:
    """The rotation of transformers and a slice assignment, of a chain at the table's last
    positions: (qkv, k_cache, v_cache, ...) -> q [B, H_q, N, D].
    """
    stop = rope.shape[1]
    start = stop - num_nodes
    cos, sin = (table[start:].repeat(1, 2).to(dtype) for table in rope)

    def run(qkv: Tensor, k_cache: Tensor, v_cache: Tensor, *_: Any) -> Tensor:
        h_kv = k_cache.shape[1]
        heads = qkv.unflatten(-1, (-1, k_cache.shape[3])).transpose(1, 2)
        q, k, v = heads.split([heads.shape[1] - 2 * h_kv, h_kv, h_kv], dim=1)
        k_cache[:, :, start:stop] = rotate(k, cos, sin)
        v_cache[:, :, start:stop] = v
        return rotate(q, cos, sin)

    return run


def attention_peers(setting: Setting, inputs: AttentionInputs) -> Peers:
    """tree_attention of (q, k_cache, v_cache), whose nodes and scale are those of `inputs`."""
    nodes, num_nodes = inputs.nodes, inputs.q.shape[1]
    used = int(nodes.cache_seqlens.max()) + num_nodes
    peers: Peers = {"SDPA": sdpa(inputs, used), "FlexAttention": flex(setting, inputs, used)}
    if setting.device.type == "cuda":
        if nodes.ancestors is None and find_spec(PACKAGES["flash-attn"]):
            peers["flash-attn"] = flash_attn(inputs)
        if find_spec(PACKAGES["FlashInfer"]):
            peers["FlashInfer"] = flashinfer(inputs, used)
    return peers


def sdpa(inputs: AttentionInputs, used: int) -> Callable[..., object]:
    """scaled_dot_product_attention over the slots in use; a single node needs no mask."""
    whole = inputs.q.shape[1] == 1 and bool((inputs.nodes.cache_seqlens == used - 1).all())
    group = inputs.q.shape[2] // inputs.k_cache.shape[1]
    mask = None if whole else grouped_mask(inputs.nodes, used, group)

    def run(q: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        return grouped_sdpa(q, k_cache[:, :, :used], v_cache[:, :, :used], mask, inputs.scale)

    return run


def flex(setting: Setting, inputs: AttentionInputs, used: int) -> Callable[..., object]:
    """FlexAttention with the tree as its mask; compiled on a GPU."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    seqlens, ancestors = inputs.nodes.cache_seqlens, inputs.nodes.ancestors
    batch, num_nodes = inputs.nodes.positions.shape

    def sees(b: Tensor, h: Tensor, q: Tensor, slot: Tensor) -> Tensor:
        node = slot - seqlens[b]
        if ancestors is None:
            return node <= q
        return (node < 0) | (((ancestors[b, q] >> node.clamp(0, 63)) & 1 == 1) & (node < num_nodes))

    mask = create_block_mask(sees, batch, None, num_nodes, used, device=setting.device)
    on_gpu = setting.device.type == "cuda"
    attend = torch.compile(flex_attention, dynamic=False) if on_gpu else flex_attention
    grouped = inputs.q.shape[2] != inputs.k_cache.shape[1]

    def run(q: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        k, v = k_cache[:, :, :used], v_cache[:, :, :used]
        out: Tensor = attend(
            q.transpose(1, 2), k, v, block_mask=mask, scale=inputs.scale, enable_gqa=grouped
        )
        return out.transpose(1, 2)

    return run


def flash_attn(inputs: AttentionInputs) -> Callable[..., object]:
    """A chain by flash_attn_with_kvcache."""
    from flash_attn import flash_attn_with_kvcache

    lengths = inputs.nodes.cache_seqlens + inputs.q.shape[1]

    def run(q: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        k, v = k_cache.transpose(1, 2), v_cache.transpose(1, 2)
        out: Tensor = flash_attn_with_kvcache(
            q, k, v, cache_seqlens=lengths, softmax_scale=inputs.scale, causal=True
        )
        return out

    return run


def flashinfer(inputs: AttentionInputs, used: int) -> Callable[..., object]:
    """A chain causally, a tree as a packed custom mask. A page of KV_CHUNK slots is a view: page j
    of sequence b begins at slot j of its first head, and a head is as far away as in the cache.
    """
    from flashinfer import BatchPrefillWithPagedKVCacheWrapper

    batch, num_nodes, h_q, head_dim = inputs.q.shape
    _, h_kv, num_slots, _ = inputs.k_cache.shape
    lengths = (inputs.nodes.cache_seqlens + num_nodes).tolist()
    pages = [-(-length // KV_CHUNK) for length in lengths]
    per_sequence = h_kv * num_slots // KV_CHUNK
    indices = [b * per_sequence + j for b, count in enumerate(pages) for j in range(count)]
    masks = visible(inputs.nodes, used)
    packed = torch.cat([m[:, :n].flatten() for m, n in zip(masks, lengths, strict=True)])
    wrapper = BatchPrefillWithPagedKVCacheWrapper(torch.empty(256 * 2**20).byte(), "HND")
    wrapper.plan(
        torch.arange(batch + 1, dtype=torch.int32) * num_nodes,
        torch.tensor([0, *pages], dtype=torch.int32).cumsum(0, dtype=torch.int32),
        torch.tensor(indices, dtype=torch.int32),
        torch.tensor([(n - 1) % KV_CHUNK + 1 for n in lengths], dtype=torch.int32),
        h_q,
        h_kv,
        head_dim,
        KV_CHUNK,
        custom_mask=None if inputs.nodes.ancestors is None else packed,
        causal=inputs.nodes.ancestors is None,
        sm_scale=inputs.scale,
        q_data_type=inputs.q.dtype,
    )

    def paged(cache: Tensor) -> Tensor:
        shape = (max(indices) + 1, h_kv, KV_CHUNK, head_dim)
        return cache.as_strided(shape, (KV_CHUNK * head_dim, num_slots * head_dim, head_dim, 1))

    def run(q: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        out: Tensor = wrapper.run(q.flatten(0, 1), (paged(k_cache), paged(v_cache)))
        return out.view_as(q)

    return run
