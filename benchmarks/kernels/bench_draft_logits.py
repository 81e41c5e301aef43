"""draft_logits: the rows that sampled drafts are drawn from; of the head, and of a copy in int8."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Setting
from benchmarks.models import EPS
from kangaroo_kernels.draft_head import DraftHead, quantize
from kangaroo_kernels.testing import random_norm_weight, random_weight


def torch_logits(h: Tensor, norm: Tensor, head: Tensor) -> Tensor:
    return F.linear(F.rms_norm(h, norm.shape, norm, EPS), head).float()


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in setting.sweep.models:
        c, v = model.hidden, model.vocab
        h, norm = torch.randn(1, 1, c).to(dtype), random_norm_weight(c, dtype)
        plain = DraftHead(random_weight(v, c, dtype))
        for head in (plain, quantize(plain.weight, torch.int8)):
            tensors = [t for t in head if t is not None]
            yield Case(
                name=f"{model.name} {str(head.weight.dtype).removeprefix('torch.')}",
                shape={"N": 1, "C": c, "V": v},
                num_bytes=sum(t.nbytes for t in (*tensors, h)) + 4 * v,
                data=(h, norm, *tensors),
                run=lambda op, h, norm, *head: op(h, DraftHead(*head), norm, EPS),
                peers={"torch": torch_logits} if head is plain else {},
            )
