"""gated_mlp: the MLP half of a layer."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Setting
from benchmarks.models import EPS
from benchmarks.peers import with_compiled
from kangaroo_kernels.testing import random_norm_weight, random_weight


def torch_gated_mlp(x: Tensor, gate_up: Tensor, down: Tensor, norm: Tensor) -> Tensor:
    gate, up = F.linear(F.rms_norm(x, norm.shape, norm, EPS), gate_up).chunk(2, dim=-1)
    return x + F.linear(F.silu(gate) * up, down)


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in setting.sweep.models:
        c, f = model.hidden, model.ffn
        weights = (random_weight(2 * f, c, dtype), random_weight(c, f, dtype))
        for n in setting.sweep.num_nodes:
            x = torch.randn(1, n, c).to(dtype)
            yield Case(
                name=model.name,
                shape={"N": n, "C": c, "F": f},
                num_bytes=(3 * c * f + 2 * n * c) * dtype.itemsize,
                data=(x, *weights, random_norm_weight(c, dtype)),
                run=lambda op, x, gate_up, down, norm: op(x, gate_up, down, norm, EPS),
                peers=with_compiled(setting, torch_gated_mlp),
            )
