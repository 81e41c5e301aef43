"""Kangaroo's adapter (paper, section 3.2): norm, self-attention, residual; its own final norm; the
target's head.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kangaroo.cache import SlotCache
from kangaroo.config import AdapterConfig, ModelConfig
from kangaroo_kernels import KernelSet
from kangaroo_kernels.adapter_weights import RefreshWeights, StepWeights
from kangaroo_kernels.nodes import NodeBatch


class VerifiedStates(NamedTuple):
    """Of slots that the target has verified, each [B, N, C].

    Attributes:
        exit: behind layer E - 1; last: behind the last layer, in front of the final norm.
        successor: the target's embeddings of the tokens behind the slots.
    """

    exit: Tensor
    last: Tensor
    successor: Tensor


class Adapter(nn.Module):
    """The parameters that training makes and the engine runs.

    Attributes:
        input_norm: [C]; norm: [C], the final norm in front of the target's head.
        qkv: [(H_q + 2 H_kv) * D, C]; o: [C, H_q * D].
        deep_norm, successor_norm: [C] and deep_kv: [2 H_kv * D, 3 C], `deep_prefix` only: keys and
            values of verified slots from [norm(h_E); norm(h_L); norm(e)], e the target's embedding
            of the token behind the slot.
    """

    def __init__(self, config: AdapterConfig):
        super().__init__()
        c, d = config.hidden_size, config.head_dim
        self.config = config
        self.input_norm = nn.Parameter(torch.ones(c))
        self.qkv = nn.Parameter(torch.empty((config.num_heads + 2 * config.num_kv_heads) * d, c))
        self.o = nn.Parameter(torch.empty(c, config.num_heads * d))
        self.norm = nn.Parameter(torch.ones(c))
        if config.kind == "deep_prefix":
            self.deep_norm = nn.Parameter(torch.ones(c))
            self.successor_norm = nn.Parameter(torch.ones(c))
            self.deep_kv = nn.Parameter(torch.empty(2 * config.num_kv_heads * d, 3 * c))

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Fresh weights: normal projections, a small output projection, unit norms."""
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim == 1:
                p.fill_(1.0)
            else:
                std = 0.002 if name == "o" else p.shape[1] ** -0.5
                p.copy_(torch.empty(p.shape).normal_(0.0, std, generator=generator))

    def step(
        self, h: Tensor, kv: SlotCache, nodes: NodeBatch, rope: Tensor, kernels: KernelSet
    ) -> Tensor:
        """Unverified slots: exit states h [B, N, C] -> adapter states [B, N, C]; appends to
        `kv`.
        """
        kv.num_nodes += h.shape[1]
        return self.through(h, kv.rows, nodes, rope, kernels)

    def through(
        self, h: Tensor, rows: Tensor, nodes: NodeBatch, rope: Tensor, kernels: KernelSet
    ) -> Tensor:
        """What `step` does, with the rows of a cache that it is not told of."""
        return kernels.adapter_step(
            h, self.step_weights(), rows[0], rows[1], nodes, rope, eps=self.config.rms_norm_eps
        )

    def step_weights(self) -> StepWeights:
        """What `adapter_step` takes."""
        return StepWeights(self.input_norm, self.qkv, self.o)

    def write_verified(
        self,
        states: VerifiedStates,
        kv: SlotCache,
        nodes: NodeBatch,
        rope: Tensor,
        *,
        kernels: KernelSet,
    ) -> None:
        """Rows of verified slots, in place.

        `paper` reads exit states alone: its verified and unverified rows are the same.
        """
        eps = self.config.rms_norm_eps
        if self.config.kind == "deep_prefix":
            weights = RefreshWeights(
                self.input_norm, self.deep_norm, self.successor_norm, self.deep_kv
            )
            kernels.adapter_refresh(states, weights, *kv.layer(0), nodes, rope, eps=eps)
        else:
            h, first_key = states.exit, self.config.num_heads * self.config.head_dim
            rows = kernels.linear(h, self.qkv[first_key:], norm_weight=self.input_norm, eps=eps)
            kernels.rope_append_kv(rows, *kv.layer(0), nodes, rope)


class BareExit(Adapter):
    """In place of an adapter: exit states as they are, for the target's own final norm and head
    (early exit as in LayerSkip, arXiv 2404.16710). No parameters and no rows of its own.
    """

    def __init__(self, target: ModelConfig, norm: Tensor, exit_layer: int):
        nn.Module.__init__(self)
        whole = AdapterConfig.for_target(target, "paper", exit_layer)
        self.config = replace(whole, num_heads=0, num_kv_heads=0)
        self.norm = nn.Parameter(norm, requires_grad=False)

    def through(
        self, h: Tensor, rows: Tensor, nodes: NodeBatch, rope: Tensor, kernels: KernelSet
    ) -> Tensor:
        """`h` itself."""
        return h

    def write_verified(
        self,
        states: VerifiedStates,
        kv: SlotCache,
        nodes: NodeBatch,
        rope: Tensor,
        *,
        kernels: KernelSet,
    ) -> None:
        """There are no rows."""
