"""Bit-exactness on the device of your choice: `python benchmarks/decode_bits.py --device cuda`.

tiny-py continues held-out Python (a random target of `--shape`: random tokens) by chains and trees
at several depths and thresholds; ids and logits are compared with decoding that drafts nothing, bit
by bit. A mistake is then made on purpose, a linear layer whose split of k depends on the number of
rows: it must be seen. Prints PASS or FAIL, appends one JSON line; the exit code is 1 on a FAIL.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `benchmarks` when run as a file

from benchmarks import logit_bits
from benchmarks.bars import Bar, exit_code
from benchmarks.logit_bits import compare, plan
from benchmarks.models import SHAPES
from benchmarks.provenance import ROOT, append, machine
from benchmarks.subjects import Source, Subject, subject
from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS
from kangaroo.engine.loading import DTYPES, TINY_PY
from kangaroo_kernels import Backend, KernelSet

RULES: tuple[Mapping[str, Any], ...] = tuple(
    {"draft": draft, "max_depth": depth, "confidence": confidence}
    for draft, depth, confidence in product(("chain", "tree"), (2, 4, 6, 8), (0.0, 0.4, 0.6, 1.0))
)
CONTROL: Mapping[str, Any] = {"draft": "chain", "max_depth": 4, "confidence": 0.0}
CONTROL_PROMPTS, CONTROL_TOKENS = 2, 32
NUM_PROMPTS, PROMPT_LEN = 50, 80
FULL_TOKENS, QUICK_TOKENS = 1_000_000, 5000
QUICK_STRIDE = 3  # through the rules: all depths and thresholds, not all pairs


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=list(SHAPES), help="a random target; default: tiny-py")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=device)
    parser.add_argument("--dtype", choices=list(DTYPES), help="float32 on a CPU, else bfloat16")
    backends = ["auto", *(backend.value for backend in Backend)]
    parser.add_argument("--backend", choices=backends, default="auto")
    parser.add_argument("--quick", action="store_true", help="fewer tokens and rules")
    parser.add_argument("--tokens", type=int, help=f"default: {FULL_TOKENS}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/decode_bits.jsonl")
    given = parser.parse_args(arguments)
    given.dtype = DTYPES[given.dtype or ("float32" if given.device == "cpu" else "bfloat16")]
    given.tokens = given.tokens or (QUICK_TOKENS if given.quick else FULL_TOKENS)
    given.rules = RULES[::QUICK_STRIDE] if given.quick else RULES
    return given


def subjects(given: argparse.Namespace) -> dict[str, Subject]:
    """The target with an adapter of either kind; one and the same where the weights are random."""
    made: dict[str, Subject] = {}
    for kind in ADAPTER_KINDS:
        torch.manual_seed(given.seed)
        source = Source(
            model=SHAPES[given.shape] if given.shape else None,
            target=None if given.shape else TINY_PY,
            adapter=kind,
            kind=kind,
            device=torch.device(given.device),
            dtype=given.dtype,
            backend=given.backend,
        )
        made[kind] = subject(source)
    model = made[ADAPTER_KINDS[0]].model
    return {kind: replace(one, model=model) for kind, one in made.items()}


def split_by_rows(kernels: KernelSet) -> KernelSet:
    """The mistake: with more rows than one, `linear` sums over k in two parts."""

    def linear(
        x: Tensor,
        weight: Tensor,
        *,
        bias: Tensor | None = None,
        norm_weight: Tensor | None = None,
        eps: float = 0.0,
        residual: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        if x.shape[1] == 1:
            return kernels.linear(
                x,
                weight,
                bias=bias,
                norm_weight=norm_weight,
                eps=eps,
                residual=residual,
                out=out,
            )
        if norm_weight is not None:
            x = kernels.rms_norm(x, norm_weight, eps)
        halves = zip(x.chunk(2, dim=2), weight.chunk(2, dim=1), strict=True)
        summed = sum(kernels.linear(a.contiguous(), w.contiguous()) for a, w in halves)
        for added in (bias, residual):
            summed = summed if added is None else summed + added
        return summed if out is None else out.copy_(summed)

    return replace(kernels, linear=linear)


def llms(made: Mapping[str, Subject]) -> dict[str, KangarooForCausalLM]:
    return {kind: one.llm for kind, one in made.items()}


def control_bar(made: Mapping[str, Subject], prompts: Sequence[list[int]]) -> Bar:
    """The comparison must see the mistake."""
    some = next(iter(made.values()))
    wrong = some.served_by(split_by_rows(some.model.kernels)).llm
    tally = compare({"control": wrong}, prompts[:CONTROL_PROMPTS], CONTROL_TOKENS, [CONTROL])
    note = f"linear split by rows, {tally.num_tokens} tokens"
    return Bar("bits that differ in the negative control", tally.differing_bits, 1, note=note)


def main(arguments: list[str] | None = None) -> int:
    """Compare, try the control, print, append."""
    given = parse(arguments)
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    made = subjects(given)
    some = next(iter(made.values()))
    room = some.model.config.max_seq_len - PROMPT_LEN
    num_prompts, new_tokens = plan(NUM_PROMPTS, len(made) * len(given.rules), given.tokens, room)
    prompts = list(some.prompts(max(num_prompts, CONTROL_PROMPTS), PROMPT_LEN).values())
    tally = compare(llms(made), prompts[:num_prompts], new_tokens, given.rules)
    bars = [*logit_bits.bars(tally, given.tokens), control_bar(made, prompts)]
    print("\n".join(map(str, bars)))
    record = machine(torch.device(given.device)) | {
        "benchmark": "decode_bits",
        "shape": some.name,
        "weights": "random" if some.path is None else some.name,
        "dtype": str(given.dtype).removeprefix("torch."),
        "backends": some.model.kernels.backends,
        "rules": given.rules,
        "num_prompts": num_prompts,
        "new_tokens": new_tokens,
        "tally": vars(tally),
        "bars": [bar.as_dict() for bar in bars],
    }
    append(record, given.out)
    return exit_code(bars)


if __name__ == "__main__":
    sys.exit(main())
