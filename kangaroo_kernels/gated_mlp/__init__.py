"""gated_mlp: the MLP half of a layer, norm and residual included."""

from typing import Protocol

from torch import Tensor


class GatedMLP(Protocol):
    def __call__(
        self,
        x: Tensor,
        gate_up: Tensor,
        down: Tensor,
        norm_weight: Tensor,
        eps: float,
        *,
        out: Tensor | None = None,
    ) -> Tensor:
        """x + (silu(g) * u) W_down^T with [g; u] = rms_norm(x) W_gate_up^T (SwiGLU).

        A row's bits do not depend on the other rows or on their number; by `library` they do.

        Args:
            x:           [B, N, C]
            gate_up:     [2 F, C], gate rows first.
            down:        [C, F]
            norm_weight: [C]
            out:         [B, N, C], where the result is written; it overlaps no other argument.
        Returns:
            `out`, or else a new [B, N, C]; x.dtype.
        """
        ...
