"""Logits bits, seeds and ends: what the engine promises about itself, checked on a subject."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.generation.stopping_criteria import StopStringCriteria

from kangaroo.engine.detokenize import UNFINISHED
from kangaroo.evals.bits import Tally, recorded, served
from kangaroo.evals.subject import Finding, Options, Subject
from kangaroo.models.adapter_io import kangaroos

NO_ADAPTER = "there is no adapter, so nothing is drafted"
# As deployed, every depth that a few steps of a chain or none can have, and long and bold ones.
RULES: tuple[Options, ...] = (
    {},
    {"max_depth": 1, "confidence": 0.0},
    {"max_depth": 2, "confidence": 0.0},
    {"max_depth": 4, "confidence": 1.0},
    {"max_depth": 6, "confidence": 0.4},
    {"max_depth": 15, "confidence": 0.0},
    {"draft": "tree"},
    {"draft": "tree", "draft_top_k": 8, "max_nodes": 64, "confidence": 0.0},
    {"draft": "tree", "tree_widths": (3, 2, 1)},
    {"lookup": 1},
    {"draft": "tree", "lookup": 1},
    {"adaptive": True},
)
TEMPERATURE = 2.0  # hot: of a sure target all seeds would write the same
NUM_STOP_PROMPTS, NUM_PLACES = 3, 5


def logits_bits(subject: Subject) -> Finding:
    """Every rule of drafting against none: ids, and the bits of the logits behind them."""
    llm = subject.llm
    if llm.adapter is None:
        return Finding(not_run=NO_ADAPTER)
    adapter = kangaroos(llm.adapter)
    total, num_drafted = Tally(), 0
    failures: list[dict[str, Any]] = []
    total.num_plain_tokens = sum(len(base.tokens) for base in subject.plain)
    for options in RULES:
        rule = llm.draft_config(**{"adaptive": False} | options)
        decoder = served(llm.model, adapter, rule)
        for number, prompt in enumerate(subject.prompts):
            base = subject.plain[number]
            run = recorded(decoder, prompt, subject.settings.max_new_tokens)
            num_drafted += run.num_drafted
            where = {"prompt": number, "options": dict(options)}
            if len(run.tokens) != len(base.tokens):
                failures.append(where | {"tokens": len(run.tokens), "wanted": len(base.tokens)})
                continue
            tally = Tally()
            for each in (tally, total):
                each.add(run, base)
            if not tally.is_clean:
                failures.append(where | asdict(tally))
    counts = {"rules": len(RULES), "num_drafted": num_drafted} | asdict(total)
    given = f"max_new_tokens={subject.settings.max_new_tokens}"
    idle = "" if num_drafted else f"nothing was drafted with {given}"
    return Finding(counts, failures, not_run=idle)


def seeds(subject: Subject) -> Finding:
    """The same seed gives the same ids, whatever else is decoded; another seed gives others."""
    num_runs, num_as_off = 0, 0
    failures: list[dict[str, Any]] = []
    undrafted: dict[int, list[int]] = {}
    for mode, options in subject.modes.items():
        differ = False
        for number, prompt in enumerate(subject.prompts):
            [ids], [other] = (_rows(subject, prompt, options, 1, seed) for seed in (0, 1))
            [again], two, three = (_rows(subject, prompt, options, n) for n in (1, 2, 3))
            differ |= other != ids
            undrafted.setdefault(number, ids)
            num_runs, num_as_off = num_runs + 5, num_as_off + (ids == undrafted[number])
            same = {"again": again, "of two": two[0], "of three": three[0]}
            failures += [
                {"prompt": number, "drafting": mode, "what": what, "ids": ids, "got": got}
                for what, got in same.items()
                if got != ids
            ]
            if two != three[:2]:
                what = "the second of two and of three"
                failures.append({"prompt": number, "drafting": mode, "what": what})
        if not differ:
            failures.append({"drafting": mode, "what": "two seeds never draw different ids"})
    return Finding({"runs": num_runs, "with_the_ids_of_no_drafting": num_as_off}, failures)


def _rows(
    subject: Subject, prompt: tuple[int, ...], options: Options, num_rows: int, seed: int = 0
) -> list[list[int]]:
    """New ids of several sequences; `seed` counts from the subject's own."""
    hot = subject.sampled(seed, temperature=TEMPERATURE, **options)
    rows: Any = subject.llm.generate(prompt, num_return_sequences=num_rows, **hot)
    ids: list[list[int]] = rows[:, len(prompt) :].tolist()
    return ids


def stops(subject: Subject) -> Finding:
    """Ends at several places of a continuation: every way of decoding cuts where it should.

    Where that is does not depend on the engine's own stopping: it is looked up in a continuation
    that nothing ended, for stop strings by transformers' criterion.
    """
    counted, failures = dict.fromkeys(("eos_token_id", "max_length", "stop_strings"), 0), []
    for number, prompt in enumerate(subject.prompts[:NUM_STOP_PROMPTS]):
        full = subject.plain[number].tokens
        for kind, options, length in _ends(subject.llm.tokenizer, prompt, full):
            for mode, drafting in subject.modes.items():
                counted[kind] += 1
                ids = subject.ids(prompt, **subject.greedy | drafting | options)
                if ids != full[:length]:
                    found = {"prompt": number, "drafting": mode} | options
                    failures.append(found | {"expected": full[:length], "ids": ids})
    untried = ", ".join(kind.replace("_", " ") for kind, count in counted.items() if not count)
    return Finding(counted, failures, not_run=untried and f"nothing was tried of: {untried}")


def _ends(
    tokenizer: PreTrainedTokenizerBase, prompt: tuple[int, ...], full: list[int]
) -> Iterator[tuple[str, Options, int]]:
    """Kind, options and the right length of a continuation that they end."""
    places = sorted({place * (len(full) - 1) // NUM_PLACES for place in range(NUM_PLACES + 1)})
    for place in places:
        token = full[place]
        yield "eos_token_id", {"eos_token_id": token}, full.index(token) + 1
        length = {"max_new_tokens": None, "max_length": len(prompt) + place + 1}
        yield "max_length", length, place + 1
        text = str(tokenizer.decode(full[place : place + 2], skip_special_tokens=True))
        if text.strip() and UNFINISHED not in text:
            options = {"stop_strings": [text]}
            yield "stop_strings", options, _cut(tokenizer, prompt, full, text)


def _cut(
    tokenizer: PreTrainedTokenizerBase, prompt: tuple[int, ...], full: list[int], text: str
) -> int:
    """Tokens up to and including the first at which transformers sees the stop string `text`."""
    criterion: Any = StopStringCriteria(tokenizer, [text])
    for length in range(1, len(full) + 1):
        if bool(criterion(torch.tensor([[*prompt, *full[:length]]]), None).any()):
            return length
    return len(full)
