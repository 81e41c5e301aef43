"""Replayed decoding: by hand, against a slow oracle, and against the engine itself."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.costs import Cost
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.models.families import model_config
from kangaroo.models.llama import rope_table
from kangaroo.train.evaluate import Judge
from kangaroo.train.simulate import Trace, simulate_cr, tune
from kangaroo.train.student import AdapterStudent
from kangaroo.train.target import FrozenTarget
from tests.engines import CPU, decoder_of, load, make_adapter, make_prompt

EXIT_LAYER, NEW_TOKENS = 2, 16


def trace_of(agree: list[list[int]], confidence: list[list[float]]) -> Trace:
    """One sequence; rows are deltas."""
    rows = torch.tensor(agree, dtype=torch.bool)[:, None]
    return Trace(rows, torch.tensor(confidence)[:, None], (rows.shape[2],))


def test_by_hand() -> None:
    """Six tokens, depth 2. Round 1: slots 0 and 1 agree, then the bonus token. Round 2 (root 3): a
    wrong draft, unsure, so no second one. Round 3 (root 4): one token may be drafted, and is right.
    """
    trace = trace_of(
        agree=[[1, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0, 0]],
        confidence=[[0.9, 0.9, 0.9, 0.2, 0.9, 0.9], [0.9] * 6],
    )
    assert simulate_cr(trace, 0.5, max_depth=2) == (6 / 3, (2 + 1 + 1) / 3)
    assert simulate_cr(trace, 0.1, max_depth=2) == (6 / 3, (2 + 2 + 1) / 3)
    # Depth 1: rounds at roots 0, 2, 3, 4.
    assert simulate_cr(trace, 0.5, max_depth=1) == (6 / 4, 4 / 4)


def test_an_unsure_token_is_kept_and_ends_the_draft() -> None:
    trace = trace_of(agree=[[1] * 12] * 3, confidence=[[0.2] * 12] * 3)
    assert simulate_cr(trace, 0.3, max_depth=3) == (2.0, 1.0)
    assert simulate_cr(trace, 0.2, max_depth=3) == (4.0, 3.0)  # "below", not "at"


@given(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from([0.0, 0.3, 0.6, 1.0]))
def test_against_an_oracle(seed: int, max_depth: int, confidence: float) -> None:
    """The oracle writes tokens one by one and asks, for each, which round it belongs to."""
    rng = torch.Generator().manual_seed(seed)
    agree = torch.rand(4, 3, 20, generator=rng) < 0.6
    sure = torch.rand(4, 3, 20, generator=rng)
    lengths = (20, 7, 1)
    rounds = 0
    for n, length in enumerate(lengths):
        depth = None  # of the draft that would make the next token; None: a new round begins
        for slot in range(length):
            if depth is None:
                rounds, depth, root = rounds + 1, 1, slot
            limit = min(max_depth, length - root - 1)
            drafted = depth <= limit and bool(agree[depth - 1, n, slot])
            go_on = drafted and depth < limit and bool(sure[depth - 1, n, slot] >= confidence)
            if not drafted:
                depth = None  # the bonus token, in place of a wrong draft or behind the last
            else:
                depth = depth + 1 if go_on else limit + 1
    trace = Trace(agree, sure, lengths)
    assert simulate_cr(trace, confidence, max_depth)[0] == pytest.approx(sum(lengths) / rounds)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_against_the_engine(target: Path, kind: AdapterKind) -> None:
    """What evaluation promises is what decoding does."""
    model = load(target)
    adapter = make_adapter(model, kind, EXIT_LAYER)
    frozen = FrozenTarget.load(target, EXIT_LAYER, torch.float32, CPU)
    judge = Judge(frozen, AdapterStudent(adapter), rope_table(model.config, CPU), batch_size=2)
    prompts = [make_prompt(model, 10, seed) for seed in (1, 2)]
    trace = judge.greedy_trace(torch.tensor(prompts), NEW_TOKENS, max_depth=4)
    assert 0 < trace.agree.sum() < trace.agree.numel()
    ranked = trace.confidence.flatten().sort().values
    middle = float(ranked[len(ranked) // 2 :][:2].mean())  # between two, lest rounding decide
    for confidence, max_depth in [(0.0, 4), (middle, 3), (1.0, 3)]:
        drafter = KangarooDrafter(model, adapter, DraftConfig(EXIT_LAYER, max_depth, confidence))
        runs = [
            decoder_of(drafter).run(prompt, length)
            for prompt, length in zip(prompts, trace.num_slots, strict=True)
        ]
        num_rounds = sum(len(run.rounds) for run in runs)
        ratio, drafts = simulate_cr(trace, confidence, max_depth)
        assert ratio == pytest.approx(sum(trace.num_slots) / num_rounds)
        if confidence in (0.0, 1.0):  # else drafts behind a wrong one may be as many as they like
            assert drafts == pytest.approx(sum(run.num_drafted for run in runs) / num_rounds)


def test_a_sequence_ends_with_its_end_token(target: Path) -> None:
    model = load(target)
    frozen = FrozenTarget.load(target, EXIT_LAYER, torch.float32, CPU)
    adapter = make_adapter(model, "paper", EXIT_LAYER)
    judge = Judge(frozen, AdapterStudent(adapter), rope_table(model.config, CPU), batch_size=1)
    prompts = torch.tensor([make_prompt(model, 10, seed=1)])
    new = frozen.continue_greedily(prompts, NEW_TOKENS)[0, 10:].tolist()
    assert judge.greedy_trace(prompts, NEW_TOKENS, 1).num_slots == (len(new),)
    frozen.eos_ids = [new[4]]
    assert judge.greedy_trace(prompts, NEW_TOKENS, 1).num_slots == (new.index(new[4]) + 1,)


def test_cost(target: Path) -> None:
    """Counted from the tensors themselves."""
    model, config = load(target), model_config(target)
    for kind in ADAPTER_KINDS:
        adapter = make_adapter(model, kind, EXIT_LAYER)
        cost = Cost.of(config, adapter.config)
        layer = sum(
            w.numel()
            for w in (
                model.weights.layers[0].qkv,
                model.weights.layers[0].o,
                model.weights.layers[0].gate_up,
                model.weights.layers[0].down,
            )
        )
        assert cost.shallow + cost.deep == 4 * layer
        assert cost.shallow == EXIT_LAYER * layer
        assert cost.head == model.weights.lm_head.numel()
        assert cost.adapter == adapter.qkv.numel() + adapter.o.numel()
        assert cost.refresh == (adapter.deep_kv.numel() if kind == "deep_prefix" else 0)


def test_speedup_by_hand() -> None:
    cost = Cost(shallow=10, deep=80, head=10, adapter=4, refresh=2)
    assert cost.speedup(1.0, 0.0) == pytest.approx(100 / 102)
    assert cost.speedup(3.0, 2.0) == pytest.approx(3 * 100 / (3 * 10 + 2 * 14 + 80 + 10 + 2))


def test_tune_tries_every_rule() -> None:
    trace = trace_of(agree=[[1] * 30] * 3, confidence=[[0.5] * 30] * 3)
    cost = Cost(shallow=1, deep=80, head=1, adapter=1, refresh=0)
    table = tune(trace, cost, (0.0, 0.9))
    assert [(row.confidence, row.max_depth) for row in table] == [
        (confidence, depth) for confidence in (0.0, 0.9) for depth in (1, 2, 3)
    ]
    best = max(table, key=lambda row: row.speedup)
    assert (best.confidence, best.max_depth) == (0.0, 3)
