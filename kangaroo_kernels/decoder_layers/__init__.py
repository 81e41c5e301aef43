"""decoder_layers: consecutive layers of a Llama-family decoder in one call."""

from typing import Protocol

from torch import Tensor

from kangaroo_kernels.nodes import NodeBatch


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
            kv:    [2 * (stop - start), B, H_kv, S, D], keys and values of each layer in turn, each
                contiguous; mutated as by `rope_append_kv`.
            nodes: where the N nodes stand.
            out:   [B, N, C], where the result is written; it overlaps no other argument.
        Returns:
            `out`, or else a new [B, N, C].
        """
        ...
