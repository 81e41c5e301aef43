"""rms_norm: x / sqrt(mean(x^2) + eps) * weight, statistics in float32."""

from typing import Protocol

from torch import Tensor


class RMSNorm(Protocol):
    def __call__(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x [..., C], weight [C] -> [..., C], x.dtype; every row on its own."""
        ...
