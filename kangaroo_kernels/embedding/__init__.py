"""embedding: the rows of tokens."""

from typing import Protocol

from torch import Tensor


class Embedding(Protocol):
    def __call__(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """weight[tokens].

        Args:
            tokens: [B, N] int64 in [0, V). On a GPU, where they are not read before the launch, a
                token outside has a row of zeros in Triton.
            weight: [V, C]
        Returns:
            [B, N, C], weight.dtype.
        """
        ...
