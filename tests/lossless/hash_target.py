"""A toy target whose states are hashes of what they see: every (token, position) in its order.

One stale row, one slot too many or too few, or a wrong position anywhere changes all that follows,
in the target and in the adapter. The adapter hashes as the deep layers do, so it knows the target's
next token and hides it at a rank of its choice: what is accepted can be told in advance.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from kangaroo.cache import SlotCache
from kangaroo.config import AdapterKind, ModelConfig
from kangaroo.draft.growth import Ranking
from kangaroo.models.adapter import VerifiedStates
from kangaroo_kernels.nodes import NodeBatch
from tests.engines import kernel_set

VOCAB_SIZE, PRIME, LOST = 97, 1_000_003, 0  # float32 holds every hash; LOST: of junk
POWERS = torch.tensor([pow(31, place, PRIME) for place in range(1200)])
CONFIG = ModelConfig(
    family="hash",
    vocab_size=VOCAB_SIZE,
    hidden_size=3,
    intermediate_size=1,
    num_layers=4,
    num_heads=1,
    num_kv_heads=1,
    head_dim=4,
    max_seq_len=1000,
    rms_norm_eps=0.0,
    rope_inv_freq=(1.0,),
)


class Hash:
    """Of every beginning of a sequence of values, one value after the other."""

    def __init__(self) -> None:
        self.length, self.sum = 0, 0

    def add(self, value: int) -> int:
        """The hash of all values so far, each with its place."""
        self.sum += _mixed(value, self.length) * pow(31, self.length, PRIME) % PRIME
        self.length += 1
        return _finished(self.sum, self.length)


def _mixed(value: Any, place: Any) -> Any:
    """Of ints or of tensors: no linear function of the value."""
    x = (value * 7919 + place * 104729 + 5) % PRIME
    return x * x % PRIME


def _finished(total: Any, length: Any) -> Any:
    x = (total + length * 613 + 17) % PRIME
    return x * (x + 1) % PRIME


def deep_hashes(tokens: Sequence[int]) -> list[int]:
    """What the target makes of every beginning of `tokens`."""
    shallow, deep = Hash(), Hash()
    return [deep.add(shallow.add(token)) for token in tokens]


def shallow_hashes(tokens: Sequence[int]) -> list[int]:
    """What the layers in front of the exit make of every beginning of `tokens`."""
    shallow = Hash()
    return [shallow.add(token) for token in tokens]


def continuation(tokens: Sequence[int], num_tokens: int) -> list[int]:
    """What the target writes behind `tokens`."""
    shallow, deep, new = Hash(), Hash(), list[int]()
    last = [deep.add(shallow.add(token)) for token in tokens][-1]
    for _ in range(num_tokens):
        new.append(next_token(last))
        last = deep.add(shallow.add(new[-1]))
    return new


def next_token(deep_hash: int) -> int:
    return deep_hash % VOCAB_SIZE


def ranking(deep_hash: int, k: int) -> Ranking:
    """The next token is at some rank, or nowhere; the drafter is sure of itself or not. All
    probabilities are exact in float32, so that ties are ties on both sides.
    """
    rank, peak = deep_hash // VOCAB_SIZE % (k + 1), (0.25, 0.5, 0.75)[deep_hash % 3]
    tokens = [(next_token(deep_hash) + n - rank) % VOCAB_SIZE for n in range(k)]
    return tokens, [peak * (1 - peak) ** n for n in range(k)]


def places(nodes: NodeBatch, num_slots: int) -> Tensor:
    """[B, N, S]: where in its own path a node sees each slot; -1: it does not."""
    slot = torch.arange(num_slots)
    first, count = nodes.cache_seqlens[:, None, None].long(), nodes.positions.shape[1]
    behind = slot - first  # of the committed slots: the tree's nodes
    if nodes.ancestors is None:
        last = nodes.first_node + torch.arange(count)[None, :, None]
        return torch.where(behind <= last, slot, -1)
    bits = nodes.ancestors[:, :, None] >> torch.arange(64) & 1
    in_path = torch.where(bits == 1, first + bits.cumsum(-1) - 1, -1)
    node = behind.expand(-1, count, -1)
    own = in_path.take_along_dim(node.clamp(0, 63), -1)
    return torch.where(node < 0, slot, torch.where(node < 64, own, -1))


def attend(h: Tensor, values: Tensor, planes: Tensor, nodes: NodeBatch) -> Tensor:
    """Append (value, position, 0, token) of every node to all `planes` [A, B, S, 4]; hash what each
    sees.

    Returns:
        h [B, N, 3] with the hashes in its second column.
    """
    batch, count = nodes.positions.shape
    slots = nodes.cache_seqlens[:, None].long() + nodes.first_node + torch.arange(count)
    new = torch.stack([values, nodes.positions.float(), torch.zeros_like(values), h[..., 0]], -1)
    planes[:, torch.arange(batch)[:, None], slots] = new
    place = places(nodes, planes.shape[2])
    whole = (planes[0] == planes).all(-1).all(0)  # which a NaN is not
    right = whole[:, None] & (planes[0, :, None, :, 1] == place)
    term = _mixed(planes[0, :, None, :, 0].nan_to_num(0).long(), place) * POWERS[place] % PRIME
    total = (term * (place >= 0)).sum(-1)
    found = _finished(total, (place >= 0).sum(-1))
    out = h.clone()
    out[..., 1] = torch.where((right | (place < 0)).all(-1), found, LOST)
    return out


class HashTarget:
    """In place of Llama. A state is (token, hash, -); shallow layers hash tokens, deep ones those
    hashes.
    """

    def __init__(self, backend: str = "reference"):
        like = torch.zeros(1)
        self.config, self.rope = CONFIG, like
        self.weights = SimpleNamespace(norm=like, lm_head=torch.zeros(VOCAB_SIZE, 3))
        self.prefill_kernels = None
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
        *,
        prefill: bool = False,
    ) -> Tensor:
        result = attend(h, h[..., 1], kv.rows[:, :, 0], nodes)
        kv.num_nodes += h.shape[1]
        return result if out is None else out.copy_(result)

    def logits(self, h: Tensor) -> Tensor:
        """The next token's is 1; the hash itself stands at the token behind, far below 0."""
        value = h[..., 1:2].nan_to_num(0).long()
        rows = torch.zeros(*h.shape[:2], VOCAB_SIZE)
        rows.scatter_(-1, next_token(value + 1), -value.float())
        return rows.scatter_(-1, next_token(value), 1.0)

    def _topk(self, h: Tensor, head: Any, norm: Any, eps: Any, k: int) -> tuple[Tensor, Tensor]:
        found = h[..., 1].nan_to_num(0).long().tolist()
        pairs = [[ranking(value, k) for value in row] for row in found]
        tokens = torch.tensor([[tokens for tokens, _ in row] for row in pairs])
        return tokens, torch.tensor([[chances for _, chances in row] for row in pairs])


class HashModel(HashTarget):
    """A draft model that knows what the target does: a pass through it hashes twice."""

    def layers(
        self,
        h: Tensor,
        start: int,
        stop: int,
        kv: SlotCache,
        nodes: NodeBatch,
        out: Tensor | None = None,
        *,
        prefill: bool = False,
    ) -> Tensor:
        for layer in (0, 2):
            h = attend(h, h[..., 1], kv.rows[2 * layer : 2 * layer + 4, :, 0], nodes)
        kv.num_nodes += h.shape[1]
        return h


class HashAdapter:
    """In place of Adapter. A row of a verified slot keeps the last state too, and which token
    follows, if the kind does.
    """

    def __init__(self, kind: AdapterKind):
        self.norm = torch.zeros(1)
        self.config = SimpleNamespace(kind=kind, num_kv_heads=1, head_dim=4, rms_norm_eps=0.0)

    def step(self, h: Tensor, kv: SlotCache, nodes: NodeBatch, *_: Any) -> Tensor:
        kv.num_nodes += h.shape[1]
        out = attend(h, h[..., 1], kv.rows[:, :, 0], nodes)
        if self.config.kind == "deep_prefix":
            rows, slot = kv.rows[0, :, 0], torch.arange(kv.num_slots)
            terms = _mixed(rows[..., 0].nan_to_num(0).long(), slot) * POWERS[slot] % PRIME
            last = _finished(terms.cumsum(-1), slot + 1)
            right = rows[..., 2] == _mixed(last, rows[..., 3].nan_to_num(0).long().roll(-1, -1))
            unverified = slot >= kv.slots.cache_seqlens[:, None]
            out[..., 1] *= (right | unverified).all(-1)[:, None]
        return out

    def write_verified(
        self, states: VerifiedStates, kv: SlotCache, nodes: NodeBatch, *_: Any, **__: Any
    ) -> None:
        batch, count = nodes.positions.shape
        slots = nodes.cache_seqlens[:, None].long() + nodes.first_node + torch.arange(count)
        h, known = states.exit, torch.zeros_like(states.exit[..., 1])
        if self.config.kind == "deep_prefix":
            last, successor = states.last[..., 1].nan_to_num(0), states.successor[..., 0]
            known = _mixed(last.long(), successor.long()).float()
        new = torch.stack([h[..., 1], nodes.positions.float(), known, h[..., 0]], dim=-1)
        kv.rows[:, :, 0][:, torch.arange(batch)[:, None], slots] = new
