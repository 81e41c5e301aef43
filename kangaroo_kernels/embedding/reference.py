"""Definition of embedding, in plain PyTorch. Any device."""

import torch.nn.functional as F
from torch import Tensor

from kangaroo_kernels.kernel_set import Target


def unsupported(target: Target) -> str | None:
    return None


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    return F.embedding(tokens, weight)
