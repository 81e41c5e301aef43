"""Definition of top1_confidence, in plain PyTorch. Any device."""

from torch import Tensor

from kangaroo_kernels.kernel_set import Target
from kangaroo_kernels.reference_math import rms_normalize, tiled_linear


def unsupported(target: Target) -> str | None:
    return None


def top1_confidence(
    h: Tensor, head: Tensor, norm_weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    logits = tiled_linear(rms_normalize(h.flatten(0, 1), norm_weight, eps), head).float()
    confidence = logits.softmax(-1).amax(-1)
    return logits.argmax(-1).view(h.shape[:2]), confidence.view(h.shape[:2])
