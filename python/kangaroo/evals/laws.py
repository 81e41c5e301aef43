"""Is what is sampled distributed as the target says? Joint chi-square tests of continuations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from kangaroo.evals.bits import plain
from kangaroo.evals.subject import Finding, Subject
from kangaroo.models.llama import Llama

ALPHA = 1e-6
LEAST_EXPECTED = 5.0  # below this the chi-square distribution is no guide to a cell's counts
# Few outcomes, none of them rare: three tokens of three candidates each, so that drafts two deep
# are accepted and refused behind each other.
NUM_TOKENS, TOP_K, TEMPERATURE = 3, 3, 2.0
NUM_PROMPTS, MAX_PROMPT_LEN = 3, 32
BOLD: dict[str, dict[str, float]] = {
    "off": {},
    "chain": {"confidence": 0.0},
    "tree": {"confidence": 0.0},
}


def sampling_law(subject: Subject) -> Finding:
    """Continuations drawn in every way, against the target's own conditional probabilities.

    The probabilities are recomputed without drafting and without the sampler.
    """
    failures: list[dict[str, Any]] = []
    remarks: list[dict[str, Any]] = []
    for number, prompt in enumerate(subject.prompts[:NUM_PROMPTS]):
        law = joint_law(subject.llm.model, prompt[:MAX_PROMPT_LEN])
        for mode, options in subject.modes.items():
            shape = {"temperature": TEMPERATURE, "top_k": TOP_K, "max_new_tokens": NUM_TOKENS}
            output: Any = subject.llm.generate(
                prompt[:MAX_PROMPT_LEN],
                **subject.sampled(number, **shape, **options, **BOLD[mode]),
                num_return_sequences=subject.settings.num_draws,
                return_dict_in_generate=True,
            )
            drawn = Counter(tuple(row) for row in output.sequences[:, -NUM_TOKENS:].tolist())
            p_value, num_cells = compared(drawn, law)
            remark = {"prompt": number, "drafting": mode, "p_value": p_value, "cells": num_cells}
            remark["drafted"] = output.speculation.num_drafted
            remark["accepted"] = output.speculation.num_accepted
            remarks.append(remark)
            if not p_value > ALPHA:
                failures.append(remark)
    counts = {
        "draws": len(remarks) * subject.settings.num_draws,
        "tests": sum(remark["cells"] > 1 for remark in remarks),
        "smallest_p_value": min(remark["p_value"] for remark in remarks),
        "alpha": ALPHA,
        "drafted": sum(remark["drafted"] for remark in remarks),
        "accepted": sum(remark["accepted"] for remark in remarks),
    }
    idle = "" if counts["tests"] else f"fewer than two outcomes are expected {LEAST_EXPECTED} times"
    return Finding(counts, failures, remarks, idle)


def joint_law(model: Llama, prompt: tuple[int, ...]) -> dict[tuple[int, ...], float]:
    """Of every possible continuation by NUM_TOKENS tokens, its probability."""
    law: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(NUM_TOKENS):
        law = {
            (*ids, token): weight * p
            for ids, weight in law.items()
            for token, p in _conditional(model, (*prompt, *ids)).items()
        }
    return law


def _conditional(model: Llama, ids: tuple[int, ...]) -> dict[int, float]:
    """The tokens that may follow `ids`: the TOP_K best, ties with the last of them included."""
    logits = plain(model, ids, 1).logits[0]
    best = (logits >= logits.topk(TOP_K).values[-1]).nonzero()[:, 0]
    row = (logits[best].double() / TEMPERATURE).softmax(-1)
    return dict(zip(best.tolist(), row.tolist(), strict=True))


def compared(
    drawn: Counter[tuple[int, ...]], law: dict[tuple[int, ...], float]
) -> tuple[float, int]:
    """:func:`chi_square` of what was drawn; 0 where it is impossible by `law`."""
    observed = torch.tensor([drawn[ids] for ids in law], dtype=torch.float64)
    p_value, num_cells = chi_square(observed, torch.tensor(list(law.values()), dtype=torch.float64))
    return p_value if drawn.keys() <= law.keys() else 0.0, num_cells


def chi_square(observed: Tensor, law: Tensor) -> tuple[float, int]:
    """Pearson's test of counts [N] against positive probabilities [N].

    Returns:
        (the probability of a statistic at least as large, the number of cells compared). From the
        rarest outcome on, so many are one cell that LEAST_EXPECTED of it are expected. One cell
        proves nothing: 1.
    """
    cells: list[list[float]] = []
    expected, order = (law.double() * observed.sum()).sort()
    for pair in zip(expected.tolist(), observed.double()[order].tolist(), strict=True):
        if not cells or cells[-1][0] >= LEAST_EXPECTED:
            cells.append([0.0, 0.0])
        cells[-1] = [sum(numbers) for numbers in zip(cells[-1], pair, strict=True)]
    if len(cells) > 1 and cells[-1][0] < LEAST_EXPECTED:  # the most probable ones rarely need this
        last = cells.pop()
        cells[-1] = [sum(numbers) for numbers in zip(cells[-1], last, strict=True)]
    if len(cells) < 2:
        return 1.0, len(cells)
    statistic = sum((seen - wanted) ** 2 / wanted for wanted, seen in cells)
    half = torch.tensor([len(cells) - 1, statistic], dtype=torch.float64) / 2
    return float(torch.special.gammaincc(half[0], half[1])), len(cells)
