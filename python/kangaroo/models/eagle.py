"""An EAGLE-style head (arXiv 2401.15077): one decoder layer that guesses the target's next last
state.
"""

from __future__ import annotations

import torch
from torch import nn

from kangaroo.config import EagleConfig
from kangaroo_kernels.layer_weights import LayerWeights


class Eagle(nn.Module):
    """The parameters that training makes and the engine runs.

    Attributes:
        embed_norm, state_norm: [C]; embed_fc, state_fc: [C, C], the two halves of the layer's
            input: of the slot's token, and of the last state of the slot in front of it.
        input_norm and the others: the layer's, as in LayerWeights.
    """

    def __init__(self, config: EagleConfig):
        super().__init__()
        c, d, f = config.hidden_size, config.head_dim, config.intermediate_size
        q, qkv = config.num_heads * d, (config.num_heads + 2 * config.num_kv_heads) * d
        self.config = config
        self.embed_norm, self.state_norm = _parameter(c), _parameter(c)
        self.embed_fc, self.state_fc = _parameter(c, c), _parameter(c, c)
        self.input_norm, self.post_norm = _parameter(c), _parameter(c)
        self.qkv, self.o = _parameter(qkv, c), _parameter(c, q)
        self.gate_up, self.down = _parameter(2 * f, c), _parameter(c, f)
        self.qkv_bias = _parameter(qkv) if config.qkv_bias else None
        self.o_bias = _parameter(c) if config.o_bias else None
        self.q_norm = _parameter(d) if config.qk_norm else None
        self.k_norm = _parameter(d) if config.qk_norm else None

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Fresh weights: normal projections, small ones out of attention and MLP, unit norms, no
        biases.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim == 1:
                p.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                inputs = 2 * p.shape[1] if name.endswith("fc") else p.shape[1]
                std = 0.002 if name in ("o", "down") else inputs**-0.5
                p.copy_(torch.empty(p.shape).normal_(0.0, std, generator=generator))

    def layer(self) -> LayerWeights:
        """The layer, as the engine's ops take it."""
        return LayerWeights(
            input_norm=self.input_norm,
            qkv=self.qkv,
            o=self.o,
            post_norm=self.post_norm,
            gate_up=self.gate_up,
            down=self.down,
            qkv_bias=self.qkv_bias,
            o_bias=self.o_bias,
            q_norm=self.q_norm,
            k_norm=self.k_norm,
        )


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape))
