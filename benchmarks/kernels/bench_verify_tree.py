"""verify_tree of a fully accepted chain, beside the argmax that any verifier needs."""

from collections.abc import Iterator

import torch

from benchmarks.harness import Case, Setting, main
from benchmarks.models import NUM_NODES, models_for


def cases(setting: Setting) -> Iterator[Case]:
    for model in models_for(setting.device):
        for n in NUM_NODES:
            logits = torch.randn(1, n, model.vocab)
            tokens = torch.cat([torch.zeros(1, 1, dtype=torch.int64), logits.argmax(-1)[:, :-1]], 1)
            parents = torch.arange(-1, n - 1)[None]
            yield Case(
                name=model.name,
                shape={"N": n, "V": model.vocab},
                num_bytes=logits.numel() * logits.itemsize,
                data=(logits, tokens, parents),
                run=lambda op, *inputs: op(*inputs),
                peer=("argmax", lambda logits, tokens, parents: logits.argmax(-1)),
            )


if __name__ == "__main__":
    main("verify_tree", cases)
