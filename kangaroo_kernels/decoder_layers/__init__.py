"""decoder_layers: consecutive layers of a Llama-family decoder in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from kangaroo_kernels.nodes import NodeBatch


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


class DecoderLayers(Protocol):
    def __call__(
        self,
        h: Tensor,
        start: int,
        stop: int,
        kv: Tensor,
        nodes: NodeBatch,
        out: Tensor | None = None,
    ) -> Tensor:
        """Layers [start, stop), at least one: the bits of `linear`, `rope_append_kv`,
        `tree_attention`, `linear` and `gated_mlp` in turn, layer by layer.

        Args:
            h:     [B, N, C]
            kv:    [2 * (stop - start), B, H_kv, S, D], keys and values of each layer in turn;
                mutated as by `rope_append_kv`.
            nodes: where the N nodes stand.
            out:   [B, N, C], where the result is written; it overlaps no other argument.
        Returns:
            `out`, or else a new [B, N, C].
        """
        ...
