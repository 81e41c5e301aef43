"""A toy target whose states are hashes of what they see: every (token, position) in its order.

One stale row, one slot too many or too few, or a wrong position anywhere changes all that follows,
in the target and in the adapter. The adapter hashes as the deep layers do, so it knows the target's
next token and hides it at a rank of its choice: what is accepted can be told in advance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import AdapterKind, ModelConfig
from kangaroo.draft.growth import Ranking
from kangaroo_kernels.nodes import NodeBatch
from tests.engines import kernel_set

VOCAB_SIZE, PRIME, LOST = 97, 1_000_003, 0  # float32 holds every hash; LOST: of junk
CONFIG = ModelConfig(
    family="hash",
    vocab_size=VOCAB_SIZE,
    hidden_size=3,
    intermediate_size=1,
    num_layers=4,
    num_heads=1,
    num_kv_heads=1,
    head_dim=3,
    max_seq_len=1000,
    rms_norm_eps=0.0,
    rope_inv_freq=(1.0,),
)


def hashes(values: Iterable[int]) -> list[int]:
    """Of every beginning of `values`, each with its place in it."""
    steps = accumulate(enumerate(values), _mix, initial=17)
    return list(steps)[1:]


def _mix(before: int, item: tuple[int, int]) -> int:
    position, value = item
    return (before * 31 + value * 7919 + position * 104729 + 5) % PRIME


def deep_hashes(tokens: Sequence[int]) -> list[int]:
    """What the target makes of every beginning of `tokens`."""
    return hashes(hashes(tokens))


def next_token(deep_hash: int) -> int:
    return deep_hash % VOCAB_SIZE


def ranking(deep_hash: int, k: int) -> Ranking:
    """The next token is at some rank, or nowhere; the drafter is sure of itself or not. All
    probabilities are exact in float32, so that ties are ties on both sides.
    """
    rank, peak = deep_hash // VOCAB_SIZE % (k + 1), (0.25, 0.5, 0.75)[deep_hash % 3]
    tokens = [(next_token(deep_hash) + n - rank) % VOCAB_SIZE for n in range(k)]
    return tokens, [peak * (1 - peak) ** n for n in range(k)]


def slots_of(nodes: NodeBatch, node: int) -> list[int]:
    """The slots that a node sees, itself the last."""
    committed, own = int(nodes.cache_seqlens), nodes.first_node + node
    if nodes.ancestors is None:
        return list(range(committed + own + 1))
    bits = int(nodes.ancestors[0, node])
    return [*range(committed), *(committed + j for j in range(64) if bits >> j & 1)]


def attend(h: Tensor, values: Tensor, planes: Tensor, nodes: NodeBatch) -> Tensor:
    """Append (value, position, 0) of every node to all `planes` [A, S, 3]; hash what each sees.

    Returns:
        h [1, N, 3] with the hashes in its second column.
    """
    first = int(nodes.cache_seqlens) + nodes.first_node
    new = planes[:, first : first + h.shape[1]]
    new[..., 0], new[..., 1], new[..., 2] = values, nodes.positions[0].float(), 0.0
    out = h.clone()
    for node in range(h.shape[1]):
        seen = planes[:, slots_of(nodes, node)]
        whole = seen.isfinite().all() and (seen == seen[:1]).all()
        in_order = whole and seen[0, :, 1].tolist() == list(range(seen.shape[1]))
        out[0, node, 1] = hashes(map(int, seen[0, :, 0].tolist()))[-1] if in_order else LOST
    return out


class HashTarget:
    """In place of Llama. A state is (token, hash, -); shallow layers hash tokens, deep ones those
    hashes.
    """

    def __init__(self, backend: str = "reference"):
        like = torch.zeros(1)
        self.config, self.rope = CONFIG, like
        self.weights = SimpleNamespace(norm=like, lm_head=torch.zeros(VOCAB_SIZE, 3))
        real = kernel_set(backend, 16)
        self.kernels = SimpleNamespace(
            verify_tree=real.verify_tree,
            compact_kv=real.compact_kv,
            topk_confidence=self._topk,
            top1_confidence=lambda *arguments: [x[..., 0] for x in self._topk(*arguments, 1)],
        )

    def embed(self, tokens: Tensor) -> Tensor:
        return torch.stack([tokens, tokens, tokens], dim=-1).float()

    def layers(
        self,
        h: Tensor,
        start: int,
        stop: int,
        kv: SlotCache,
        nodes: NodeBatch,
        out: Tensor | None = None,
    ) -> Tensor:
        result = attend(h, h[0, :, 1], kv.rows[:, 0, 0], nodes)
        kv.num_nodes += h.shape[1]
        return result if out is None else out.copy_(result)

    def logits(self, h: Tensor) -> Tensor:
        """The next token's is 1; the hash itself stands at the token behind, far below 0."""
        rows = torch.zeros(1, h.shape[1], VOCAB_SIZE)
        for node, value in enumerate(map(int, h[0, :, 1].tolist())):
            rows[0, node, next_token(value)] = 1.0
            rows[0, node, next_token(value + 1)] = -float(value)
        return rows

    def _topk(self, h: Tensor, head: Any, norm: Any, eps: Any, k: int) -> tuple[Tensor, Tensor]:
        rows = [ranking(int(value), k) for value in h[0, :, 1].tolist()]
        tokens, probabilities = zip(*rows, strict=True)
        return torch.tensor([tokens]), torch.tensor([probabilities])


class HashAdapter:
    """In place of Adapter. A row of a verified slot keeps the last state too, if the kind does."""

    def __init__(self, kind: AdapterKind):
        self.norm = torch.zeros(1)
        self.config = SimpleNamespace(kind=kind, num_kv_heads=1, head_dim=3, rms_norm_eps=0.0)

    def step(self, h: Tensor, kv: SlotCache, nodes: NodeBatch, *_: Any) -> Tensor:
        kv.num_nodes += h.shape[1]
        out = attend(h, h[0, :, 1], kv.rows[:, 0, 0], nodes)
        verified = kv.rows[0, 0, 0, : kv.slots.committed[0]]
        if self.config.kind == "deep_prefix":
            if verified[:, 2].tolist() != hashes(map(int, verified[:, 0].tolist())):
                out[..., 1] = LOST
        return out

    def write_verified(
        self, h: Tensor, h_deep: Tensor, kv: SlotCache, nodes: NodeBatch, *_: Any, **__: Any
    ) -> None:
        first = int(nodes.cache_seqlens) + nodes.first_node
        new = kv.rows[:, 0, 0, first : first + h.shape[1]]
        new[..., 0], new[..., 1] = h[0, :, 1], nodes.positions[0].float()
        new[..., 2] = h_deep[0, :, 1] if self.config.kind == "deep_prefix" else 0.0
