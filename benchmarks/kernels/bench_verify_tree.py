"""verify_tree of a fully accepted chain, beside the argmax that any verifier needs."""

from collections.abc import Iterator

import torch

from benchmarks.harness import Case, Setting


def cases(setting: Setting) -> Iterator[Case]:
    for model in setting.sweep.models:
        for n in setting.sweep.num_nodes:
            logits = torch.randn(1, n, model.vocab)
            tokens = torch.cat([torch.zeros(1, 1, dtype=torch.int64), logits.argmax(-1)[:, :-1]], 1)
            parents = torch.arange(-1, n - 1)[None]
            yield Case(
                name=model.name,
                shape={"N": n, "V": model.vocab},
                num_bytes=logits.numel() * logits.itemsize,
                data=(logits, tokens, parents),
                run=lambda op, *inputs: op(*inputs),
                peers={"argmax": lambda logits, tokens, parents: logits.argmax(-1)},
            )
