"""commit_path of a chain of four."""

from collections.abc import Iterator

import torch

from benchmarks.harness import Case, Setting
from kangaroo_kernels.draft_head import DraftChain
from kangaroo_kernels.nodes import SlotPlaces
from kangaroo_kernels.verify_tree import Verdict

NODES, REACH, LIMIT = 7, 257, 2**20


def cases(setting: Setting) -> Iterator[Case]:
    i32 = torch.int32
    for model in setting.sweep.models:
        width = model.hidden
        path_len, zeros = torch.tensor([4], dtype=i32), torch.zeros(1, dtype=i32)
        verdict = Verdict(torch.arange(NODES)[None], path_len, torch.tensor([17]))
        tokens, positions = torch.zeros(1, NODES, dtype=torch.int64), torch.zeros(1, NODES).int()
        chain = DraftChain(tokens, positions, zeros.clone(), zeros.clone(), torch.ones(1))
        places = [SlotPlaces(zeros.clone(), torch.zeros(1, REACH, dtype=i32)) for _ in range(2)]
        states = torch.randn(1, 65, width, dtype=setting.dtype)
        yield Case(
            name=model.name,
            shape={"C": width, "R": REACH},
            num_bytes=2 * width * setting.dtype.itemsize + 2 * REACH * 4,
            data=(states, *verdict, *chain, *places[0], *places[1], zeros),
            run=lambda op, h, *rest: op(
                Verdict(*rest[:3]),
                DraftChain(*rest[3:8]),
                h,
                (SlotPlaces(*rest[8:10]), SlotPlaces(*rest[10:12])),
                rest[12],
                lag=1,
                limit=LIMIT,
            ),
        )
