"""Weights of a decoder layer, as its ops take them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer; projections fused along their outputs.

    Attributes:
        input_norm: [C]; post_norm: [C] (in front of the MLP).
        qkv: [(H_q + 2 H_kv) * D, C]; qkv_bias: [(H_q + 2 H_kv) * D] or None.
        o: [C, H_q * D]; o_bias: [C] or None.
        gate_up: [2 F, C], gate first; down: [C, F].
        q_norm: [D] or None; k_norm: [D] or None.
    """

    input_norm: Tensor
    qkv: Tensor
    o: Tensor
    post_norm: Tensor
    gate_up: Tensor
    down: Tensor
    qkv_bias: Tensor | None = None
    o_bias: Tensor | None = None
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None
