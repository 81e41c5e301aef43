"""topk_confidence: the ten children that a tree's drafter chooses from."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Setting
from benchmarks.models import EPS
from kangaroo_kernels.draft_head import DraftHead
from kangaroo_kernels.testing import random_norm_weight, random_weight

K = 10


def torch_topk(h: Tensor, head: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    logits = F.linear(F.rms_norm(h, norm.shape, norm, EPS), head).float()
    confidence, token = logits.softmax(-1).topk(K)
    return token, confidence


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in setting.sweep.models:
        c, v = model.hidden, model.vocab
        for n in setting.sweep.num_nodes:
            h, norm = torch.randn(1, n, c).to(dtype), random_norm_weight(c, dtype)
            yield Case(
                name=model.name,
                shape={"N": n, "C": c, "V": v, "k": K},
                num_bytes=(v * c + n * c) * dtype.itemsize,
                data=(h, random_weight(v, c, dtype), norm),
                run=lambda op, h, head, norm: op(h, DraftHead(head), norm, EPS, K),
                peers={"torch": torch_topk},
            )
