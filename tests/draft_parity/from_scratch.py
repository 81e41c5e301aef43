"""Target and adapter from scratch: the whole sequence at once, no cache, no kernels, any dtype."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kangaroo.models.adapter import Adapter
from kangaroo.models.llama import Llama
from kangaroo_kernels.layer_weights import LayerWeights


class FromScratch:
    """States of every slot of a sequence, from its tokens alone."""

    def __init__(self, model: Llama, adapter: Adapter, dtype: torch.dtype):
        self.model, self.adapter, self.dtype = model, adapter, dtype
        self.eps = model.config.rms_norm_eps

    def adapter_states(self, tokens: list[int], num_verified: int) -> Tensor:
        """[N, C]: what the adapter makes of each slot, the first `num_verified` being verified."""
        adapter, config = self.adapter, self.adapter.config
        h, h_deep = self.target_states(tokens)
        normed = self.norm(h, adapter.input_norm)
        num_kv = 2 * config.num_kv_heads * config.head_dim
        qkv = self.linear(normed, adapter.qkv)
        if config.kind == "deep_prefix":
            embedded = self.model.weights.embed[tokens].to(self.dtype)
            successor = self.norm(embedded.roll(-1, 0), adapter.successor_norm)
            seen = torch.cat([normed, self.norm(h_deep, adapter.deep_norm), successor], dim=-1)
            qkv[:num_verified, -num_kv:] = self.linear(seen, adapter.deep_kv)[:num_verified]
        return h + self.linear(self.attention(qkv), adapter.o)

    def probabilities(self, states: Tensor) -> Tensor:
        """[N, V]: what the drafter makes of adapter states."""
        normed = self.norm(states, self.adapter.norm)
        return self.linear(normed, self.model.weights.lm_head).softmax(-1)

    def target_states(self, tokens: list[int]) -> tuple[Tensor, Tensor]:
        """Exit states and last states, each [N, C]."""
        weights = self.model.weights
        h = weights.embed[tokens].to(self.dtype)
        states = []
        for layer in weights.layers:
            h = self.layer(h, layer)
            states.append(h)
        return states[self.adapter.config.exit_layer - 1], h

    def layer(self, h: Tensor, w: LayerWeights) -> Tensor:
        heads = self.attention(self.linear(self.norm(h, w.input_norm), w.qkv))
        h = h + self.linear(heads, w.o)
        gate, up = self.linear(self.norm(h, w.post_norm), w.gate_up).chunk(2, dim=-1)
        return h + self.linear(F.silu(gate) * up, w.down)

    def attention(self, qkv: Tensor) -> Tensor:
        """Causal: qkv [N, (H_q + 2 H_kv) * D] -> [N, H_q * D]."""
        config = self.model.config
        heads = qkv.unflatten(-1, (-1, config.head_dim)).transpose(0, 1)  # [H_q + 2 H_kv, N, D]
        q, k, v = heads.split([config.num_heads, config.num_kv_heads, config.num_kv_heads])
        k, v = (x.repeat_interleave(len(q) // len(x), dim=0) for x in (self.rotate(k), v))
        scores = self.rotate(q) @ k.mT * config.head_dim**-0.5
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return (weights @ v).transpose(0, 1).flatten(1)

    def rotate(self, x: Tensor) -> Tensor:
        """RoPE of x [H, N, D]: slot i stands at position i."""
        inv_freq = torch.tensor(self.model.config.rope_inv_freq, dtype=self.dtype)
        angles = torch.arange(x.shape[1], dtype=self.dtype)[:, None] * inv_freq
        turn = torch.polar(torch.ones_like(angles), angles)
        a, b = x.chunk(2, dim=-1)
        turned = torch.complex(a.contiguous(), b.contiguous()) * turn
        return torch.cat([turned.real, turned.imag], dim=-1)

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight.to(self.dtype), self.eps)

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight.to(self.dtype).mT
