"""rms_norm over the rows of a call."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from benchmarks.harness import Case, Setting, main
from benchmarks.models import EPS, NUM_NODES, models_for
from kangaroo_kernels.testing import random_norm_weight


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in models_for(setting.device):
        c = model.hidden
        for n in NUM_NODES:
            yield Case(
                name=model.name,
                shape={"N": n, "C": c},
                num_bytes=(2 * n + 1) * c * dtype.itemsize,
                data=(torch.randn(1, n, c).to(dtype), random_norm_weight(c, dtype)),
                run=lambda op, x, weight: op(x, weight, EPS),
                peer=("torch", lambda x, weight: F.rms_norm(x, weight.shape, weight, EPS)),
            )


if __name__ == "__main__":
    main("rms_norm", cases)
