"""draw_tokens: a step's row and a tree's rows of the target's logits, whole and shaped by top-k and
top-p.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.harness import Case, Setting
from kangaroo_kernels.draws import Draw, Draws

DRAWS = {
    "greedy": Draw(),
    "plain": Draw(temperature=0.8),
    "top-k top-p": Draw(temperature=0.8, top_k=50, top_p=0.9),
}


def torch_draw(logits: Tensor, *_: Tensor) -> Tensor:
    """Of what no warp shapes."""
    return (logits[0] / 0.8).softmax(-1).multinomial(1)


def cases(setting: Setting) -> Iterator[Case]:
    for model in setting.sweep.models:
        for n in setting.sweep.num_nodes:
            logits = 3 * torch.randn(1, n, model.vocab)
            positions = torch.arange(n, dtype=torch.int32)[None]
            for name, draw in DRAWS.items():
                beside = {"torch": torch_draw} if name == "plain" else {}
                if name == "top-k top-p":
                    beside = peers.sampling_peers(setting, draw)
                yield Case(
                    name=f"{model.name} {name}",
                    shape={"N": n, "V": model.vocab},
                    num_bytes=logits.nbytes,
                    data=(logits, positions, *Draws.of([draw], logits.device)),
                    run=lambda op, logits, positions, *draws: op(logits, Draws(*draws), positions),
                    peers=beside,
                )
