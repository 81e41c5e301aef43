"""embedding of the tokens of a call."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from benchmarks.harness import Case, Setting
from kangaroo_kernels.testing import random_weight


def cases(setting: Setting) -> Iterator[Case]:
    dtype = setting.dtype
    for model in setting.sweep.models:
        for n in setting.sweep.num_nodes:
            yield Case(
                name=model.name,
                shape={"N": n, "C": model.hidden, "V": model.vocab},
                num_bytes=2 * n * model.hidden * dtype.itemsize,
                data=(
                    torch.randint(model.vocab, (1, n)),
                    random_weight(model.vocab, model.hidden, dtype),
                ),
                run=lambda op, tokens, weight: op(tokens, weight),
                peers={"torch": F.embedding},
            )
