"""Adapters of other shapes than the engine has, as students of the trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kangaroo.config import ModelConfig
from kangaroo.costs import Cost, layer_parameters
from kangaroo.train.evaluate import top1
from kangaroo.train.forward import heads_of, own_document, rotate, verified_then_own
from kangaroo.train.simulate import Replay
from kangaroo.train.target import FrozenTarget, States


@dataclass(frozen=True)
class Shape:
    """What an adapter is made of.

    Attributes:
        exit_layer: E.
        attention, mlp: its parts, in this order, each with a norm in front and a residual.
        own_head: instead of the target's, which it starts as.
        deep_layer: verified slots' keys and values see the state behind so many layers too (E: the
            exit state again); None: they do not.
        successor: they see the embedding of the token behind the slot.
        borrowed: the verified slots' keys and values are the target's own, of layer `deep_layer`
            (GLIDE, arXiv 2402.02082).
        front: all slots' keys and values see the exit state of the slot in front too.
        token: and the embedding of the slot's own token. With both, a row is what `successor` makes
            of the slot in front, and nothing is written twice.
    """

    exit_layer: int = 2
    attention: bool = True
    mlp: bool = False
    own_head: bool = False
    deep_layer: int | None = None
    successor: bool = False
    borrowed: bool = False
    front: bool = False
    token: bool = False

    @property
    def num_more(self) -> int:
        """States that verified rows see beside the exit state."""
        return (self.deep_layer is not None) + self.successor

    @property
    def refreshed(self) -> bool:
        """Verified slots have other rows than unverified ones."""
        return self.borrowed or self.num_more > 0


class Variant(nn.Module):
    """An adapter of some shape, with the heads and the MLP of the target's layers."""

    def __init__(self, shape: Shape, target: ModelConfig):
        super().__init__()
        self.shape, self.target = shape, target
        c, d = target.hidden_size, target.head_dim
        q, kv = target.num_heads * d, 2 * target.num_kv_heads * d
        self.norm = nn.Parameter(torch.ones(c))
        if shape.attention:
            self.input_norm = nn.Parameter(torch.ones(c))
            self.qkv = nn.Parameter(torch.empty(q + kv, c))
            self.o = nn.Parameter(torch.empty(c, q))
        if count := shape.front + shape.token:
            self.own_norms = nn.ParameterList(torch.ones(c) for _ in range(count))
            self.own_kv = nn.Parameter(torch.empty(kv, count * c))
        if shape.num_more and not shape.borrowed:
            self.more_norms = nn.ParameterList(torch.ones(c) for _ in range(shape.num_more))
            self.deep_kv = nn.Parameter(torch.empty(kv, (1 + shape.num_more) * c))
        if shape.mlp:
            self.post_norm = nn.Parameter(torch.ones(c))
            self.gate_up = nn.Parameter(torch.empty(2 * target.intermediate_size, c))
            self.down = nn.Parameter(torch.empty(c, target.intermediate_size))
        if shape.own_head:
            self.head = nn.Parameter(torch.empty(target.vocab_size, c))

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """As `Adapter.reset`."""
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                std = 0.002 if name in ("o", "down") else p.shape[1] ** -0.5
                p.copy_(torch.empty(p.shape).normal_(0.0, std, generator=generator))


class VariantStudent:
    """A `Student`. Nothing is saved: the engine has no such adapter."""

    trains_all = False

    def __init__(self, shape: Shape, target: ModelConfig):
        self.module, self.lent = Variant(shape, target), list[Tensor]()

    @property
    def scaled(self) -> list[nn.Parameter]:
        """See Student."""
        named = dict(self.module.named_parameters())
        return [named[name] for name in ("o", "down") if name in named]

    @torch.no_grad()
    def start(self, target: FrozenTarget, seed: int) -> None:
        """See Student."""
        shape = self.module.shape
        self.module.reset(seed)
        self.module.norm.copy_(target.norm)
        if shape.own_head:
            self.module.head.copy_(target.head)
        if shape.borrowed:
            assert shape.deep_layer is not None
            layer = target.model.model.layers[shape.deep_layer]
            kv = layer.self_attn.k_proj.weight, layer.self_attn.v_proj.weight
            self.lent = [layer.input_layernorm.weight, torch.cat(kv)]

    def hidden(self, states: States, rope: Tensor, deltas: Sequence[int]) -> Iterator[Tensor]:
        """See Student."""
        out: Tensor | None = None
        for delta in deltas:
            if out is None or self.module.shape.refreshed:
                out = self._hidden(states, rope, delta)
            yield out

    def head(self, delta: int, target_head: Tensor) -> Tensor:
        """See Student."""
        return self.module.head if self.module.shape.own_head else target_head

    def cost(self, target: ModelConfig) -> Cost:
        """See Student. A head of its own is read instead of the target's."""
        shape, c = self.module.shape, target.hidden_size
        kv, layer = 2 * target.num_kv_heads * target.head_dim, layer_parameters(target)
        attention = 2 * c * target.num_heads * target.head_dim + c * kv
        more = 0 if shape.borrowed else shape.num_more
        return Cost(
            shallow=shape.exit_layer * layer,
            deep=(target.num_layers - shape.exit_layer) * layer,
            head=target.vocab_size * c,
            adapter=shape.attention * attention
            + (shape.front + shape.token) * kv * c
            + shape.mlp * 3 * c * target.intermediate_size,
            refresh=kv * c * (1 + more) if more else 0,
        )

    def save(self, path: Path, target: Path, rule: Replay) -> None:
        """See Student."""
        raise NotImplementedError

    def _hidden(self, states: States, rope: Tensor, delta: int) -> Tensor:
        own, eps = self.module, self.module.target.rms_norm_eps
        out = states.exit
        if own.shape.attention:
            out = out + F.linear(self._attended(states, rope, delta), own.o)
        if own.shape.mlp:
            x = F.rms_norm(out, out.shape[-1:], own.post_norm, eps)
            gate, up = F.linear(x, own.gate_up).chunk(2, dim=-1)
            out = out + F.linear(F.silu(gate) * up, own.down)
        return F.rms_norm(out, out.shape[-1:], own.norm, eps)

    def _attended(self, states: States, rope: Tensor, delta: int) -> Tensor:
        """[B, T, H_q * D]."""
        own, target = self.module, self.module.target
        positions = states.positions
        assert positions is not None
        here, mask = rope[:, positions].unsqueeze(2), own_document(positions)
        x = self._normed(states.exit, own.input_norm)
        widths = [target.num_heads, target.num_kv_heads, target.num_kv_heads]
        rows = heads_of(F.linear(x, own.qkv), target.head_dim)
        q, k, v = rows.split(widths, dim=1)
        if own.shape.front or own.shape.token:
            more = heads_of(self._own(states), target.head_dim)
            k, v = (a + b for a, b in zip((k, v), more.chunk(2, dim=1), strict=True))
        k = rotate(k, here)
        if own.shape.refreshed:
            rows = heads_of(self._verified(states, x), target.head_dim)
            k_deep, v_deep = rows.split(target.num_kv_heads, dim=1)
            k, v = torch.cat([rotate(k_deep, here), k], 2), torch.cat([v_deep, v], 2)
            mask = verified_then_own(mask, delta)
        groups = target.num_heads // target.num_kv_heads
        k, v = (y.repeat_interleave(groups, dim=1) for y in (k, v))
        out = F.scaled_dot_product_attention(rotate(q, here), k, v, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)

    def _own(self, states: States) -> Tensor:
        """What `front` and `token` add to keys and values [B, T, 2 H_kv * D]."""
        own, shape = self.module, self.module.shape
        assert states.positions is not None
        inside = (states.positions > 0).unsqueeze(-1)  # slots in front are of the same document
        before = (F.pad(h[:, :-1], (0, 0, 1, 0)) * inside for h in (states.exit, states.successor))
        seen = [h for h, wanted in zip(before, (shape.front, shape.token), strict=True) if wanted]
        normed = [self._normed(h, norm) for h, norm in zip(seen, own.own_norms, strict=True)]
        return F.linear(torch.cat(normed, dim=-1), own.own_kv)

    def _verified(self, states: States, x: Tensor) -> Tensor:
        """Keys and values of verified slots [B, T, 2 H_kv * D]."""
        own, shape = self.module, self.module.shape
        if shape.borrowed:
            norm, kv = self.lent
            return F.linear(self._normed(states.last, norm), kv)
        more = [states.last] * (shape.deep_layer is not None) + [states.successor] * shape.successor
        normed = [self._normed(h, norm) for h, norm in zip(more, own.more_norms, strict=True)]
        return F.linear(torch.cat([x, *normed], dim=-1), own.deep_kv)

    def _normed(self, h: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(h, h.shape[-1:], weight, self.module.target.rms_norm_eps)


class Unrolled(VariantStudent):
    """A slot counts where decoding comes there: where the student's own drafts in front of it, from
    the root of its draft on, are the target's best tokens.
    """

    def start(self, target: FrozenTarget, seed: int) -> None:
        """See Student."""
        super().start(target, seed)
        self.target_head = target.head

    def hidden(self, states: States, rope: Tensor, deltas: Sequence[int]) -> Iterator[Tensor]:
        """See Student."""
        for delta, out in zip(deltas, super().hidden(states, rope, deltas), strict=True):
            counted: Tensor = out
            if out.requires_grad:
                weight = self._reached(states, rope, delta)
                counted = _Counted.apply(out, weight)  # type: ignore[no-untyped-call]
            yield counted

    @torch.no_grad()
    def _reached(self, states: States, rope: Tensor, delta: int) -> Tensor:
        """[B, T, 1] float32: 1 where all drafts of smaller delta in front are right."""
        reached = torch.ones_like(states.ids, dtype=torch.bool)
        truth, _ = top1(states.normed.flatten(0, 1), self.target_head)
        for out in super().hidden(states, rope, range(1, delta)):
            guess, _ = top1(out.flatten(0, 1), self.target_head)
            right = (guess == truth).view_as(reached) & reached
            reached = F.pad(right[:, :-1], (1, 0))
        return reached.unsqueeze(-1).float()


class _Counted(torch.autograd.Function):
    """The first argument; its gradient is multiplied by the second."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return upstream[0] * weight, None
