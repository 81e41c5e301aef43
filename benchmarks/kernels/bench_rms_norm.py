"""rms_norm over the rows of a call."""

from collections.abc import Iterator

import torch

from benchmarks.harness import Case, Setting
from benchmarks.models import EPS
from benchmarks.peers import rms_norm_peers
from kangaroo_kernels.testing import random_norm_weight


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in setting.sweep.models:
        c = model.hidden
        for n in setting.sweep.num_nodes:
            yield Case(
                name=model.name,
                shape={"N": n, "C": c},
                num_bytes=(2 * n + 1) * c * dtype.itemsize,
                data=(torch.randn(1, n, c).to(dtype), random_norm_weight(c, dtype)),
                run=lambda op, x, weight: op(x, weight, EPS),
                peers=rms_norm_peers(setting, EPS),
            )
