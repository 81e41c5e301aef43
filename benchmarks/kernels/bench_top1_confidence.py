"""top1_confidence: what follows every draft step, by the target's head and its stand-ins."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Setting
from benchmarks.models import EPS, Model
from kangaroo_kernels.draft_head import QUANTIZED, DraftHead, quantize
from kangaroo_kernels.testing import random_norm_weight, random_weight


def torch_top1(h: Tensor, norm: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    logits = F.linear(F.rms_norm(h, norm.shape, norm, EPS), weight).float()
    confidence, token = logits.softmax(-1).max(-1)
    return token, confidence


def run(op: Callable[..., object], h: Tensor, norm: Tensor, *head: Any) -> object:
    return op(h, DraftHead(*head), norm, EPS)


def own_heads(setting: Setting, model: Model) -> Iterator[Case]:
    """The target's own head."""
    c, v, dtype = model.hidden, model.vocab, setting.dtype
    for n in setting.sweep.num_nodes:
        yield Case(
            name=model.name,
            shape={"N": n, "C": c, "V": v},
            num_bytes=(v * c + n * c) * dtype.itemsize,
            data=(
                torch.randn(1, n, c).to(dtype),
                random_norm_weight(c, dtype),
                random_weight(v, c, dtype),
            ),
            run=run,
            peers={"torch": torch_top1},
        )


def stand_ins(setting: Setting, model: Model) -> Iterator[Case]:
    """A quarter of the vocabulary; copies of one byte an element. Nobody else has them."""
    c, v, dtype = model.hidden, model.vocab, setting.dtype
    weight = random_weight(v, c, dtype)
    heads = {"a quarter": DraftHead(weight, token_ids=torch.arange(0, v, 4).int())}
    copies = QUANTIZED if setting.device.type == "cuda" else (torch.int8,)
    heads |= {str(d).removeprefix("torch."): quantize(weight, d) for d in copies}
    for name, head in heads.items():
        element = head.weight.dtype.itemsize
        scales = 0 if head.scale is None else 4 * head.num_ids
        yield Case(
            name=f"{model.name} {name}",
            shape={"N": 1, "C": c, "V": head.num_ids},
            num_bytes=head.num_ids * c * element + scales + c * dtype.itemsize,
            data=(torch.randn(1, 1, c).to(dtype), random_norm_weight(c, dtype), *head),
            run=run,
        )


def cases(setting: Setting) -> Iterator[Case]:
    for model in setting.sweep.models:
        yield from own_heads(setting, model)
        yield from stand_ins(setting, model)
