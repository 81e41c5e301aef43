"""What a trained row does: by stopping rules, as trees in the engine, along a stream of text."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import tree_cr
from benchmarks.ablations.bench import Bench
from kangaroo import KangarooForCausalLM
from kangaroo.evals.prompts import held_out_prompts
from kangaroo.train.evaluate import until_eos
from kangaroo.train.online import Learner, OnlineConfig
from kangaroo.train.run import Run
from kangaroo.train.simulate import Replay, Trace, replay, simulate_cr, tune
from kangaroo.train.trainer import CONFIDENCES

KINDS = ("code", "prose")
STREAM, AT_ONCE, QUARTERS = 64, 8, 4  # prompts; finished between two updates; parts of the stream
TREES = Namespace(new_tokens=128, confidences=[0.0, 0.4], max_depth=6)
TREE_PROMPTS, TREE_PROMPT_LEN = 20, 80


@dataclass(frozen=True)
class Judged:
    """What a student does with one kind of text.

    Attributes:
        table: every stopping rule; best: the fastest as predicted; full_ratio: the compression
            ratio of drafts that only depth ends.
        agreement: teacher-forced, behind the root of a draft.
    """

    table: tuple[Replay, ...]
    best: Replay
    full_ratio: float
    agreement: float


def judged(bench: Bench, run: Run) -> dict[str, Judged]:
    """A trained row on both kinds of text."""
    given, cost, found = bench.settings, run.student.cost(bench.config), {}
    for kind in KINDS:
        trace = run.judge.trace(
            bench.texts.continued[kind], given.prompt_len, given.new_tokens, given.max_depth
        )
        table = tune(trace, cost, CONFIDENCES)
        full, _ = simulate_cr(trace, 0.0, given.max_depth)
        scores = run.judge.teacher_forced(bench.texts.held[kind].evenly(12), (1,))
        best = max(table, key=lambda rule: rule.speedup)
        found[kind] = Judged(table, best, full, scores.agreement[0])
    return found


def trees(bench: Bench, run: Run) -> list[dict[str, Any]]:
    """Chains and trees that the engine drafts with a trained adapter; see benchmarks/tree_cr.py."""
    rule = Replay(0.0, TREES.max_depth, 0.0, 0.0, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        run.student.save(Path(folder), bench.path, rule)
        llm = KangarooForCausalLM.from_pretrained("tiny-py", folder)
    prompts = held_out_prompts(bench.texts.tokenizer, TREE_PROMPTS, TREE_PROMPT_LEN)
    return tree_cr.decode(llm, prompts, TREES)


def stream(bench: Bench, run: Run) -> dict[str, Any]:
    """Prose, prompt behind prompt: CR in every quarter as trained, and with an optimiser step on
    what was verified behind every few prompts: it leaves the student changed.
    """
    written = bench.texts.written("prose", STREAM, AT_ONCE)
    frozen = [_trace(bench, run, ids) for ids in written]
    whole = Trace(
        torch.cat([trace.agree for trace in frozen], dim=1),
        torch.cat([trace.confidence for trace in frozen], dim=1),
        tuple(length for trace in frozen for length in trace.num_slots),
    )
    table = tune(whole, run.student.cost(bench.config), CONFIDENCES)
    best = max(table, key=lambda rule: rule.speedup)
    learning, prompt_len = list[Trace](), bench.settings.prompt_len
    learner = Learner(
        run.target,
        run.student,
        run.rope,
        OnlineConfig(every=AT_ONCE, loss=run.config.loss),
        max_depth=bench.settings.max_depth,
        seed=run.config.seed,
        optimizer=run.optimizer,
    )
    for ids in written:
        learning.append(_trace(bench, run, ids))
        lengths = until_eos(ids[:, prompt_len:], run.target.eos_ids)
        for row, length in zip(ids, lengths, strict=True):
            learner.observe(row[: prompt_len + length], prompt_len)
    return {
        "rule": [best.confidence, best.max_depth],
        "frozen": _quarters(frozen, best),
        "learning": _quarters(learning, best),
    }


def _trace(bench: Bench, run: Run, ids: Tensor) -> Trace:
    given = bench.settings
    return run.judge.trace([ids], given.prompt_len, given.new_tokens, given.max_depth)


def _quarters(traces: Sequence[Trace], rule: Replay) -> list[float]:
    """CR in each part of the stream."""
    size, ratios = len(traces) // QUARTERS, []
    for first in range(0, size * QUARTERS, size):
        some = traces[first : first + size]
        rounds = sum(len(replay(trace, rule.confidence, rule.max_depth)) for trace in some)
        tokens = sum(sum(trace.num_slots) for trace in some)
        ratios.append(round(tokens / rounds, 4))
    return ratios
