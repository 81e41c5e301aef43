"""gated_mlp: the MLP half of a layer."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Case, Setting, main
from benchmarks.models import EPS, NUM_NODES, models_for
from kangaroo_kernels.testing import random_norm_weight, random_weight


def torch_gated_mlp(x: Tensor, gate_up: Tensor, down: Tensor, norm: Tensor) -> Tensor:
    gate, up = F.linear(F.rms_norm(x, norm.shape, norm, EPS), gate_up).chunk(2, dim=-1)
    return x + F.linear(F.silu(gate) * up, down)


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in models_for(setting.device):
        c, f = model.hidden, model.ffn
        weights = (random_weight(2 * f, c, dtype), random_weight(c, f, dtype))
        for n in NUM_NODES:
            x = torch.randn(1, n, c).to(dtype)
            yield Case(
                name=model.name,
                shape={"N": n, "C": c, "F": f},
                num_bytes=(3 * c * f + 2 * n * c) * dtype.itemsize,
                data=(x, *weights, random_norm_weight(c, dtype)),
                run=lambda op, x, gate_up, down, norm: op(x, gate_up, down, norm, EPS),
                peer=("torch", torch_gated_mlp),
            )


if __name__ == "__main__":
    main("gated_mlp", cases)
