"""linear at the projections of attention: norm in front of qkv, residual behind the output."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from benchmarks.harness import Case, Setting, main
from benchmarks.models import EPS, NUM_NODES, models_for
from kangaroo_kernels.testing import random_norm_weight, random_weight


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in models_for(setting.device):
        c, o = model.hidden, model.qkv_width
        for n in NUM_NODES:
            x = torch.randn(1, n, c).to(dtype)
            yield Case(
                name=f"{model.name} norm, qkv",
                shape={"N": n, "C": c, "O": o},
                num_bytes=(o * c + n * (c + o)) * dtype.itemsize,
                data=(x, random_weight(o, c, dtype), random_norm_weight(c, dtype)),
                run=lambda op, x, w, norm: op(x, w, norm_weight=norm, eps=EPS),
                peer=(
                    "torch",
                    lambda x, w, norm: F.linear(F.rms_norm(x, norm.shape, norm, EPS), w),
                ),
            )
            yield Case(
                name=f"{model.name} output",
                shape={"N": n, "C": c, "O": c},
                num_bytes=(c * c + 3 * n * c) * dtype.itemsize,
                data=(x, random_weight(c, c, dtype), x),
                run=lambda op, x, w, residual: op(x, w, residual=residual),
                peer=("torch", lambda x, w, residual: residual + F.linear(x, w)),
            )


if __name__ == "__main__":
    main("linear", cases)
