"""Everything one sequence owns while it is being decoded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import ModelConfig
from kangaroo.draft.tree import DraftTree
from kangaroo_kernels import KernelSet
from kangaroo_kernels.nodes import NodeBatch
from kangaroo_kernels.verify_tree import Verdict


@dataclass
class DecodeState:
    """Between rounds tokens[:-1] are in the target's caches and tokens[-1], the next root, is in
    none.

    The `paper` adapter may be one slot behind: a leaf is verified without passing through it;
    `exit_hidden` keeps what it missed.

    Attributes:
        tokens: prompt and committed tokens.
        shallow_kv, deep_kv: the target's layers [0, E) and [E, L).
        adapter_kv: the adapter's own, written by the drafter.
        exit_hidden: exit states, what verification and the adapter start from.
        positions: [1, S] int32, every position: NodeBatches are cut from it without making tensors.
    """

    tokens: list[int]
    shallow_kv: SlotCache
    deep_kv: SlotCache
    adapter_kv: SlotCache
    exit_hidden: SlotCache
    positions: Tensor

    @classmethod
    def empty(
        cls, model: ModelConfig, exit_layer: int, adapter_kv: SlotCache, like: Tensor
    ) -> DecodeState:
        """No tokens, and caches as long as `adapter_kv`, on the device and in the dtype of
        `like`.
        """
        num_slots = adapter_kv.num_slots

        def kv(num_layers: int, h_kv: int, head_dim: int) -> SlotCache:
            return SlotCache((2 * num_layers, 1, h_kv), num_slots, head_dim, like)

        return cls(
            tokens=[],
            shallow_kv=kv(exit_layer, model.num_kv_heads, model.head_dim),
            deep_kv=kv(model.num_layers - exit_layer, model.num_kv_heads, model.head_dim),
            adapter_kv=adapter_kv,
            exit_hidden=SlotCache((1, 1, 1), num_slots, model.hidden_size, like),
            positions=torch.arange(num_slots, dtype=torch.int32, device=like.device)[None],
        )

    @property
    def prefix_len(self) -> int:
        """Committed slots; also the root's slot and position."""
        return len(self.tokens) - 1

    def nodes(self, cache: SlotCache, tree: DraftTree, start: int = 0) -> NodeBatch:
        """Nodes of `tree` from `start` on, whose rows of `cache` are written next: behind all that
        is committed, each at the root's position plus its depth.
        """
        if tree.is_chain:
            return cache.chain(len(tree) - start, self.positions)
        depths, ancestors = tree.places(start, self.positions.device)
        return NodeBatch(depths + self.prefix_len, cache.cache_seqlens, start, ancestors)

    def commit(self, verdict: Verdict, tokens: list[int], kernels: KernelSet) -> None:
        """Make the accepted path and `tokens` history: the one place where caches shrink."""
        caches = (self.shallow_kv, self.deep_kv, self.exit_hidden, self.adapter_kv)
        root, path = self.prefix_len, verdict.path[0, : len(tokens)].tolist()
        if path[-1] != len(path) - 1:  # a chain is in place already
            rows = [cache.rows for cache in caches]
            kernels.compact_kv(rows, verdict.path, verdict.path_len, self.deep_kv.cache_seqlens)
        self.tokens += tokens
        for cache in caches:  # of a path, the adapter may lack the leaf
            kept = sum(root + node < cache.length for node in path)
            cache.commit(min(cache.length, root + kept))
