"""linear: x W^T, with a norm in front, bias and residual behind."""

from typing import Protocol

from torch import Tensor


class Linear(Protocol):
    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        *,
        bias: Tensor | None = None,
        norm_weight: Tensor | None = None,
        eps: float = 0.0,
        residual: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """residual + rms_norm(x) W^T + bias; the absent parts are left out.

        A row's bits do not depend on the other rows or on their number; by `library` they do.

        Args:
            x:           [B, N, C]
            weight:      [O, C]
            bias:        [O]
            norm_weight: [C], with `eps`: RMSNorm in front.
            residual:    [B, N, O]
            out:         [B, N, O] of x.dtype or float32, where the result is written; it overlaps
                no other argument.
        Returns:
            `out`, or else a new [B, N, O] of x.dtype; accumulated in float32.
        """
        ...
