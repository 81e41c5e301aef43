"""Medusa-1 and the EAGLE-style head over whole sequences, differentiable: what the engine does with
them, slot by slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kangaroo.config import ModelConfig
from kangaroo.costs import Cost
from kangaroo.models.eagle import Eagle
from kangaroo.models.medusa import Medusa
from kangaroo.train.forward import own_document, rotate
from kangaroo.train.simulate import Replay
from kangaroo.train.student import deploy
from kangaroo.train.target import FrozenTarget, States

Rows = tuple[Tensor, Tensor]  # keys and values of all slots, each [B, H, T, D]


class MedusaStudent:
    """Medusa-1. All heads weigh the same in the loss."""

    trains_all = True

    def __init__(self, module: Medusa):
        self.module = module

    @property
    def scaled(self) -> list[nn.Parameter]:
        """None: what the heads read has been normed."""
        return []

    def start(self, target: FrozenTarget, seed: int) -> None:
        """Nothing is random: every head says what the target does."""
        self.module.reset(target.head)

    def hidden(self, states: States, rope: Tensor, deltas: Sequence[int]) -> Iterator[Tensor]:
        """See Student."""
        positions = positions_of(states)
        for delta in deltas:
            head = self.module.of(delta)
            x = earlier(states.normed.to(head.weight), positions, delta)
            yield x + F.silu(F.linear(x, head.weight, head.bias))

    def head(self, delta: int, target_head: Tensor) -> Tensor:
        """Its own."""
        return self.module.of(delta).head

    def cost(self, target: ModelConfig) -> Cost:
        """See Student."""
        return Cost.of(target, self.module.config)

    def save(self, path: Path, target: Path, rule: Replay) -> None:
        """See Student."""
        deploy(self.module, path, target, rule)


class EagleStudent:
    """The EAGLE-style head, unrolled as in EAGLE-3 (arXiv 2503.01840): pass d reads what pass d - 1
    has made of the slot in front.

    Args:
        target: whose embedding, final norm and head it uses; None: that of :meth:`start`.
    """

    trains_all = True

    def __init__(self, module: Eagle, target: FrozenTarget | None = None):
        self.module, self._target = module, target

    @property
    def scaled(self) -> list[nn.Parameter]:
        """None: nothing is added to states that have not been normed."""
        return []

    def start(self, target: FrozenTarget, seed: int) -> None:
        """See Student."""
        self._target = target
        self.module.reset(seed)

    def hidden(self, states: States, rope: Tensor, deltas: Sequence[int]) -> Iterator[Tensor]:
        """See Student."""
        passes = list(self._passes(states, rope, max(deltas)))
        for delta in deltas:
            yield self._norm(passes[delta - 1], self._started.norm.to(passes[0]))

    def head(self, delta: int, target_head: Tensor) -> Tensor:
        """See Student."""
        return target_head

    def cost(self, target: ModelConfig) -> Cost:
        """See Student."""
        return Cost.of(target, self.module.config)

    def save(self, path: Path, target: Path, rule: Replay) -> None:
        """See Student."""
        deploy(self.module, path, target, rule)

    @property
    def _started(self) -> FrozenTarget:
        assert self._target is not None, "it is started with a target"
        return self._target

    def _passes(self, states: States, rope: Tensor, count: int) -> Iterator[Tensor]:
        """Guesses [B, T, C] of every slot's last state, by pass."""
        own, positions = self.module, positions_of(states)
        embedded = F.embedding(states.ids, self._started.embedding).to(own.embed_fc)
        token = F.linear(self._norm(embedded, own.embed_norm), own.embed_fc)
        last, rows = states.last, list[Rows]()
        for _ in range(count):
            before = self._norm(earlier(last, positions, 1), own.state_norm)
            last = self._layer(token + F.linear(before, own.state_fc), rope, positions, rows)
            yield last

    def _layer(self, x: Tensor, rope: Tensor, positions: Tensor, rows: list[Rows]) -> Tensor:
        """The layer on x [B, T, C]; keys and values of this pass are added to `rows`."""
        config, w = self.module.config, self.module.layer()
        here, widths = rope[:, positions].unsqueeze(2), [config.num_heads, config.num_kv_heads]
        qkv = F.linear(self._norm(x, w.input_norm), w.qkv, w.qkv_bias)
        heads = qkv.unflatten(-1, (-1, config.head_dim)).transpose(1, 2)
        q, k, v = heads.split([*widths, config.num_kv_heads], dim=1)
        q = q if w.q_norm is None else self._norm(q, w.q_norm)
        k = k if w.k_norm is None else self._norm(k, w.k_norm)
        groups = config.num_heads // config.num_kv_heads
        k, v = (each.repeat_interleave(groups, dim=1) for each in (rotate(k, here), v))
        rows.append((k, v))
        seen = attention(rotate(q, here), rows, positions).transpose(1, 2).flatten(2)
        x = x + F.linear(seen, w.o, w.o_bias)
        gate, up = F.linear(self._norm(x, w.post_norm), w.gate_up).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, w.down)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self._started.eps)


def positions_of(states: States) -> Tensor:
    """[B or 1, T] int64, of each slot in its document."""
    if states.positions is not None:
        return states.positions
    return torch.arange(states.ids.shape[1], device=states.ids.device)[None]


def earlier(x: Tensor, positions: Tensor, steps: int) -> Tensor:
    """x [B, T, C] of the slot that is `steps` in front; zeros where that is not in the document."""
    moved = F.pad(x, (0, 0, steps, 0))[:, : x.shape[1]]
    return moved.masked_fill((positions < steps)[..., None], 0.0)


def attention(q: Tensor, rows: Sequence[Rows], positions: Tensor) -> Tensor:
    """Of the last of the passes that `rows` are of: q [B, H, T, D] -> [B, H, T, D].

    In pass d slots up to t - d are verified where slot t drafts, and slot t - d + 1 is the root,
    whose row is made as theirs are: the query sees the keys of pass 1 up to there, and behind it
    one of each pass, that of pass j at slot t - d + j.
    """
    (k, v), drafted = rows[0], rows[1:]
    slot, distances = torch.arange(q.shape[2], device=q.device), range(len(drafted) - 1, -1, -1)
    seen = own_document(positions) & (slot <= slot[:, None] - len(drafted))
    scores, values = [(q @ k.mT).masked_fill(~seen, -torch.inf)], list[Tensor]()
    for distance, (keys, theirs) in zip(distances, drafted, strict=True):
        moved = [F.pad(x, (0, 0, distance, 0))[:, :, : len(slot)] for x in (keys, theirs)]
        score = torch.linalg.vecdot(q, moved[0])
        outside = (positions < distance)[:, None]
        scores.append(score.masked_fill(outside, -torch.inf)[..., None])
        values.append(moved[1])
    weights = (torch.cat(scores, dim=-1) * q.shape[-1] ** -0.5).softmax(-1)
    out: Tensor = weights[..., : len(slot)] @ v
    for n, moved_values in enumerate(values, len(slot)):
        out = out + weights[..., n, None] * moved_values
    return out
