"""Draft parity: at every draft step the cached adapter says what it would say from scratch.

Losslessness cannot see a drafter that is wrong, only one that is slow. Here everything is made anew
from the tokens alone, by other code: exit and last states of every slot, then the adapter over all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft import kangaroo
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.pace import Pace
from kangaroo.draft.tree import DraftTree
from kangaroo.engine import decode
from kangaroo.engine.decode import Decoder
from kangaroo.engine.state import DecodeState, Request
from kangaroo.models.adapter import Adapter
from kangaroo.models.llama import Llama
from kangaroo_kernels import testing
from tests.draft_parity.from_scratch import FromScratch
from tests.engines import (
    BACKENDS,
    SMALL,
    NoisyDrafter,
    PerfectDrafter,
    WrongDrafter,
    autoregressive,
    load,
    make_adapter,
    make_prompt,
    num_live,
    request_of,
)
from tests.factories import make_checkpoint

NUM_TOKENS = 120
EXIT_LAYER = 2
CONFIG = DraftConfig(EXIT_LAYER, max_depth=5, confidence=0.2)
DRAFTERS = {
    "trained": None,
    "perfect": PerfectDrafter,
    "noisy": NoisyDrafter,
    "wrong": WrongDrafter,
}
CASES = [("native", drafter, prompt_len) for drafter in DRAFTERS for prompt_len in (1, 90)]
CASES += [("native", "noisy", 2), ("reference", "noisy", 40)]


@dataclass(frozen=True)
class DraftedRound:
    """What the adapter did in one round.

    Attributes:
        tokens: of all slots, those of the round's nodes included.
        prefix_len: the slots that are verified.
        steps: of each pass of the adapter its first slot and what it returned, [N, C].
    """

    tokens: list[int]
    prefix_len: int
    tree: DraftTree
    steps: list[tuple[int, Tensor]]


class ProbedAdapter(Adapter):
    """Keeps what it returns."""

    steps: list[tuple[int, Tensor]]

    def step(self, h: Tensor, kv, *args) -> Tensor:  # type: ignore[no-untyped-def]
        first_slot = num_live(kv)
        out = super().step(h, kv, *args)
        self.steps.append((first_slot, out[0]))
        return out


class ProbedDecoder(Decoder):
    """Keeps what was drafted."""

    def drafted(self, prompt: list[int]) -> list[DraftedRound]:
        self.rounds: list[DraftedRound] = []
        self.drafter.adapter.steps = []
        for _ in self.generate(request_of(prompt, NUM_TOKENS)):
            pass
        return self.rounds

    def verify(self, state: DecodeState, trees: list[DraftTree]) -> tuple[Tensor, Tensor]:
        adapter, (tree,) = self.drafter.adapter, trees
        tokens = state.requests[0].tokens[:-1] + tree.tokens
        self.rounds.append(DraftedRound(tokens, state.prefix_lens[0], tree, adapter.steps))
        adapter.steps = []
        return super().verify(state, trees)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    overrides = SMALL | {"num_hidden_layers": 3}
    return make_checkpoint(tmp_path_factory.mktemp("target"), "llama-gqa-llama3", **overrides)


class Seldom(Pace):
    """Drafts in one round of three."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def depth(self, requests: Sequence[Request]) -> int:
        return CONFIG.max_depth * (int(torch.randint(3, (), generator=self.generator)) == 0)

    def book(
        self, requests: Sequence[Request], num_passes: int, num_nodes: int, num_new: int
    ) -> None:
        pass


def drafted_rounds(
    model: Llama,
    kind: AdapterKind,
    drafter: str,
    prompt_len: int,
    pace: Pace | None = None,
    config: DraftConfig = CONFIG,
) -> list[DraftedRound]:
    prompt = make_prompt(model, prompt_len, seed=prompt_len)
    plain = make_adapter(model, kind, EXIT_LAYER)
    adapter = ProbedAdapter(plain.config).requires_grad_(False)
    adapter.load_state_dict(plain.state_dict())
    if scripted := DRAFTERS[drafter]:
        tokens = prompt + autoregressive(model, prompt, NUM_TOKENS).tokens
        made = scripted(model, adapter, config, tokens)
    else:
        made = KangarooDrafter(model, adapter, config)
    decoder = ProbedDecoder(model, made, config)
    decoder.pace = pace
    return decoder.drafted(prompt)


@pytest.mark.parametrize(("backend", "drafter", "prompt_len"), CASES)
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_adapter_equals_a_recomputation(
    path: Path,
    kind: AdapterKind,
    backend: str,
    drafter: str,
    prompt_len: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every row of every pass, to twice the rounding of a plain computation in float32.

    The prompt goes through in several pieces, so the rows that prefill writes are tested too.
    """
    monkeypatch.setattr(decode, "PREFILL_CHUNK", 37)
    model = load(path, backend)
    steps = compare(model, kind, drafted_rounds(model, kind, drafter, prompt_len))
    assert len(steps) >= 100
    if drafter != "trained":  # whose luck is its own
        assert (2 in steps) == (kind == "paper" and drafter != "wrong")


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("drafter", ["perfect", "noisy"])
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_an_adapter_that_is_seldom_asked(
    path: Path, kind: AdapterKind, drafter: str, adaptive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are there however many rounds drafted nothing, and those cost no pass of it;
    adaptive drafting lets rows wait, a few at most.
    """
    monkeypatch.setattr(kangaroo, "MOST_UNWRITTEN", 3)
    model, config = load(path, "native"), replace(CONFIG, adaptive=adaptive)
    rounds = drafted_rounds(model, kind, drafter, 20, Seldom(), config)
    idle = [not drafted.steps for drafted in rounds]
    assert [idle[n : n + 3] for n in range(len(idle))].count([True] * 3) >= 3
    steps = compare(model, kind, rounds)
    assert len(steps) >= 20
    assert adaptive or (2 in steps) == (kind == "paper")


def compare(model: Llama, kind: AdapterKind, rounds: list[DraftedRound]) -> list[int]:
    """Every row of every pass of the adapter; how many rows each had."""
    budget, num_rows = testing.Budget(), list[int]()
    adapter = make_adapter(model, kind, EXIT_LAYER)
    exact, plain = (FromScratch(model, adapter, dtype) for dtype in (torch.float64, torch.float32))
    for drafted in rounds:
        check_shape(drafted)
        slots = [n for slot, out in drafted.steps for n in range(slot, slot + len(out))]
        if not slots:
            continue
        expected = exact.adapter_states(drafted.tokens, drafted.prefix_len)[slots]
        rounded = plain.adapter_states(drafted.tokens, drafted.prefix_len)[slots]
        budget.add(torch.cat([out for _, out in drafted.steps]), expected, rounded)
        num_rows += [len(out) for _, out in drafted.steps]
    budget.check()
    return num_rows


def check_shape(drafted: DraftedRound) -> None:
    """One pass per drafted token: up to the newest node, from where the last pass ended."""
    assert len(drafted.steps) == len(drafted.tree) - 1
    stops = [slot + len(out) for slot, out in drafted.steps]
    assert stops == [drafted.prefix_len + 1 + step for step in range(len(stops))]
    assert [slot for slot, _ in drafted.steps[1:]] == stops[:-1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_drafts_are_the_adapters_own(path: Path, backend: str, kind: AdapterKind) -> None:
    """Every drafted token is the recomputed choice; drafting stops just where that is unsure."""
    model = load(path, backend)
    exact = FromScratch(model, make_adapter(model, kind, EXIT_LAYER), torch.float64)
    num_stops = {True: 0, False: 0}
    for drafted in drafted_rounds(model, kind, "trained", 40)[: -CONFIG.max_depth]:
        tree, prefix_len = drafted.tree, drafted.prefix_len
        states = exact.adapter_states(drafted.tokens, prefix_len)[prefix_len:-1]
        confidence, choices = exact.probabilities(states).max(-1)
        assert choices.tolist() == tree.tokens[1:]
        sure = (confidence >= CONFIG.confidence).tolist()
        assert all(sure[:-1])
        assert sure[-1] <= (len(sure) == CONFIG.max_depth)
        num_stops[sure[-1]] += 1
    assert all(num_stops.values()), num_stops
