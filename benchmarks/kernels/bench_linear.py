"""linear at the projections of a layer and at the head."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Setting
from benchmarks.models import EPS
from benchmarks.peers import with_compiled
from kangaroo_kernels.testing import random_norm_weight, random_weight


def torch_normed(x: Tensor, weight: Tensor, norm: Tensor, out: Tensor) -> Tensor:
    return out.copy_(F.linear(F.rms_norm(x, norm.shape, norm, EPS), weight))


def torch_residual(x: Tensor, weight: Tensor, residual: Tensor) -> Tensor:
    return residual + F.linear(x, weight)


def cases(setting: Setting) -> Iterator[Case]:
    """Norm in front of qkv and of the head, residual behind the output of attention."""
    dtype = setting.dtype
    for model in setting.sweep.models:
        c, q_width = model.hidden, model.heads.h_q * model.heads.head_dim
        normed = {"qkv": (model.qkv_width, dtype), "head": (model.vocab, torch.float32)}
        for n in setting.sweep.num_nodes:
            x = torch.randn(1, n, c).to(dtype)
            for place, (o, out_dtype) in normed.items():
                out = torch.empty(1, n, o, dtype=out_dtype)
                yield Case(
                    name=f"{model.name} norm, {place}",
                    shape={"N": n, "C": c, "O": o},
                    num_bytes=(o * c + n * c) * dtype.itemsize + n * o * out.itemsize,
                    data=(x, random_weight(o, c, dtype), random_norm_weight(c, dtype), out),
                    run=lambda op, x, w, norm, out: op(x, w, norm_weight=norm, eps=EPS, out=out),
                    peers=with_compiled(setting, torch_normed),
                )
            heads = torch.randn(1, n, q_width).to(dtype)
            yield Case(
                name=f"{model.name} output",
                shape={"N": n, "C": q_width, "O": c},
                num_bytes=(c * q_width + n * (q_width + 2 * c)) * dtype.itemsize,
                data=(heads, random_weight(c, q_width, dtype), x),
                run=lambda op, x, w, residual: op(x, w, residual=residual),
                peers=with_compiled(setting, torch_residual),
            )
