"""Drafts copied from the text, with Kangaroo's or nobody's behind them: they change no bit, and
leave the adapter what it must know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig

from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.draft.copying import CopyingDrafter
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.draft.whole import chain_drafter
from kangaroo.engine.decode import Decoder
from kangaroo.engine.outputs import GenerateOutput
from kangaroo.engine.state import DecodeState, Request
from kangaroo.models.llama import Llama
from tests.engines import (
    QUICK_BACKENDS,
    QUICK_KINDS,
    SMALL,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
    poison,
)
from tests.factories import make_checkpoint
from tests.lossless.hash_target import VOCAB_SIZE, HashAdapter, HashTarget, continuation
from tests.lossless.test_batches import DRAFTS, knows, storm
from tests.lossless.test_bits import check
from tests.lossless.test_hash_target import PROMPT, predicted
from tests.sampling.test_mutants import mutated

NUM_TOKENS = 60
CONFIGS = [
    DraftConfig(2, max_depth=1, confidence=0.0, lookup=1, lookup_depth=1),
    DraftConfig(2, max_depth=4, confidence=0.0, lookup=1),
    DraftConfig(2, max_depth=4, confidence=0.3, lookup=1, lookup_depth=63),
    DraftConfig(2, max_depth=4, confidence=0.0, lookup=1, adaptive=True),
    DraftConfig(2, max_depth=4, confidence=0.0, lookup=1, draft="tree", max_nodes=8),
    DraftConfig(2, confidence=0.3, lookup=1, lookup_depth=20, draft="tree", adaptive=True),
    DraftConfig(2, lookup=1, draft="tree", tree_widths=(3, 2, 1)),
]


class Poisoned(CopyingDrafter):
    """Finds NaN in every slot that no one has a right to read."""

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        poison(state)
        return super().draft(state, max_depths)


def spoilt(rest: list[int], length: int, count: int, vocab_size: int) -> list[int]:
    """What follows `length` tokens, now and then: up to `count` of `rest`, and one of them may be
    wrong.
    """
    if length % 4 == 0:
        return []
    copy, wrong = rest[: min(count, 1 + length * 5 % 13)], length % 9 if length % 2 else count
    return [(token + (n == wrong)) % vocab_size for n, token in enumerate(copy)]


def told(texts: Sequence[list[int]], vocab_size: int) -> Callable[..., list[int]]:
    """In place of `CopyingDrafter.copy`: goes on as one of `texts` does, more or less."""

    def copy(_: CopyingDrafter, request: Request, count: int) -> list[int]:
        length = len(request.tokens)
        rest = next(text[length:] for text in texts if text[:length] == request.tokens)
        return spoilt(rest, length, count, vocab_size)

    return copy


@pytest.fixture(scope="module", params=QUICK_BACKENDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    overrides = SMALL | {"num_hidden_layers": 3}
    path = tmp_path_factory.mktemp("target")
    return load(make_checkpoint(path, "llama-gqa-llama3", **overrides), str(request.param))


@pytest.mark.parametrize("kind", [*QUICK_KINDS, None])
def test_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, model: Llama, kind: AdapterKind | None
) -> None:
    """However long the copies are, right, wrong or right in part, and whoever drafts in between."""
    prompt, parts = make_prompt(model, 41), set()
    plain = autoregressive(model, prompt, NUM_TOKENS)
    texts = [prompt + plain.tokens]
    monkeypatch.setattr(Poisoned, "copy", told(texts, model.config.vocab_size))
    for config in CONFIGS:
        adapter = None if kind is None else make_adapter(model, kind, 2)
        other = BranchingDrafter if adapter and config.draft == "tree" else chain_drafter
        run = decoder_of(Poisoned(other(model, adapter, config))).run(prompt, NUM_TOKENS)
        check(run, plain)
        copied = [r for r in run.rounds if r.num_drafted]
        parts |= {(r.num_accepted > 0) + (r.num_accepted == r.num_drafted) for r in copied}
    assert parts == {0, 1, 2}


@pytest.mark.parametrize("sampling", [{}, {"seed": 5}, {"seed": 5, "repetition_penalty": 1.2}])
@pytest.mark.parametrize("kind", QUICK_KINDS)
def test_generate_in_batches(
    monkeypatch: pytest.MonkeyPatch,
    model: Llama,
    kind: AdapterKind,
    sampling: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Some copy while others draft; drawn tokens are those of the seed, by kernels or by torch."""
    llm = KangarooForCausalLM(model, make_adapter(model, kind, 1), tmp_path, GenerationConfig())
    prompts = [make_prompt(model, length, seed=length) for length in (30, 30, 31)]
    options = sampling | {"do_sample": "seed" in sampling, "max_new_tokens": 40}
    options |= {"output_logits": True, "return_dict_in_generate": True}

    def run(**draft: Any) -> tuple[list[list[int]], Tensor, int]:
        output = llm.generate(prompts, **(options | draft))
        assert isinstance(output, GenerateOutput)
        assert output.logits is not None
        assert output.speculation is not None
        assert output.sequences is not None
        pairs = zip(output.sequences.tolist(), prompts, strict=True)
        sequences = [row[31 - len(prompt) :] for row, prompt in pairs]
        return sequences, torch.stack(output.logits), output.speculation.num_rounds

    texts, logits, num_rounds = run(draft="off")
    monkeypatch.setattr(CopyingDrafter, "copy", told(texts, model.config.vocab_size))
    bold: dict[str, Any] = {"confidence": 0.0, "adaptive": False}
    tree = {"draft": "tree", "max_nodes": 12}
    for draft in (bold, bold | tree, {}, tree, {"draft": "tree", "tree_widths": [2, 2]}):
        others, other_logits, fewer = run(lookup=1, **draft)
        assert others == texts
        assert torch.equal(other_logits, logits)
        assert fewer < num_rounds


@pytest.mark.parametrize("draft", ["chain", "tree"])
def test_copies_beside_speculative_sampling(model: Llama, draft: str, tmp_path: Path) -> None:
    """A sequence's tokens for a seed are its own, whoever is beside it."""
    adapter = make_adapter(model, "deep_prefix", 1)
    llm = KangarooForCausalLM(model, adapter, tmp_path, GenerationConfig())
    prompts = [make_prompt(model, length, seed=length) for length in (30, 30, 31)]
    options: dict[str, Any] = {"do_sample": True, "temperature": 0.5, "seed": 5}
    options |= {"draft_sampling": "rejection", "lookup": 1, "draft": draft, "max_new_tokens": 40}
    together: Any = llm.generate(prompts, **options)
    alone: Any = llm.generate(prompts[0], **options)
    assert together[0, -40:].tolist() == alone[0, -40:].tolist()


def whispered(tokens: list[int], count: int) -> list[int]:
    """What the target will say behind `tokens`, more or less."""
    return spoilt(continuation(tokens, count), len(tokens), count, VOCAB_SIZE)


class Whispering(Poisoned):
    """Is told what to copy, and knows nothing of the text."""

    def copy(self, request: Request, count: int) -> list[int]:
        return whispered(request.tokens, count)


def whispering(kind: AdapterKind, draft: str) -> Decoder:
    target: Any = HashTarget()
    adapter: Any = HashAdapter(kind)
    config = DraftConfig(2, lookup=1, **DRAFTS[draft])
    drafter = BranchingDrafter if config.draft == "tree" else KangarooDrafter
    return Decoder(target, Whispering(drafter(target, adapter, config)), config)


@pytest.mark.parametrize("capacity", [1, 4])
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("draft", ["chain", "adaptive chain", "tree", "static tree"])
def test_every_sequence_says_what_it_must(draft: str, kind: AdapterKind, capacity: int) -> None:
    result = storm(whispering(kind, draft), capacity, num_sequences=6)
    assert result.is_right
    assert result.num_tokens > 20


def all_known() -> bool:
    """In batches, alone, and behind rows that had to wait."""
    ways = list(product(ADAPTER_KINDS, ("bold chain", "chain", "tree", "static tree")))
    return (
        all(knows(whispering(*way), num_new=30, copied=whispered) for way in ways)
        and all(alone(*way) == list(expected_alone(way[1])) for way in ways)
        and all(now_and_then(k, adaptive=True) == now_and_then(k) for k in ADAPTER_KINDS)
    )


def alone(kind: AdapterKind, draft: str) -> list[tuple[int, int]]:
    rounds = whispering(kind, draft).generate(Request(list(PROMPT), 90))
    return [(r.num_drafted, r.num_accepted) for r in rounds]


def expected_alone(draft: str) -> Iterator[tuple[int, int]]:
    rule = DRAFTS[draft]
    if "draft" not in rule:  # a chain: the tree of one token behind every other
        rule = {"max_depth": 6} | rule
        rule |= {"draft": "tree", "draft_top_k": 1, "max_nodes": 1 + rule["max_depth"]}
    return predicted(DraftConfig(2, **rule), PROMPT, 90, copied=whispered)


def now_and_then(kind: AdapterKind, *, adaptive: bool = False) -> list[tuple[int, int]]:
    """Some rounds draft nothing: their rows are written later where drafting is adaptive."""
    target: Any = HashTarget()
    adapter: Any = HashAdapter(kind)
    config = DraftConfig(2, confidence=0.0, lookup=1, adaptive=adaptive)
    drafter = Whispering(KangarooDrafter(target, adapter, config))
    decoder = Decoder(target, drafter, config)
    decoder.pace = None
    plain = drafter.draft

    def idle(state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        return plain(state, [0] if len(state.requests[0].tokens) % 4 < 2 else max_depths)

    drafter.draft = idle  # type: ignore[method-assign]
    rounds = decoder.generate(Request(list(PROMPT), 90))
    return [(r.num_drafted, r.num_accepted) for r in rounds]


def test_the_adapter_knows_what_it_should() -> None:
    assert all_known()
    assert len({accepted for _, accepted in now_and_then("paper")}) > 3


# Name, function, what stands in it, what a mistake would put there.
MUTANTS: list[tuple[str, Callable[..., Any], str, str]] = [
    ("drafts stay", KangarooDrafter.take, "min(1, state.shallow_kv.num_nodes)", "num_nodes - 1"),
    ("rows of drafts stay", KangarooDrafter.take, "min(1, own.num_nodes)", "own.num_nodes"),
    ("nobody catches up", KangarooDrafter.take, "any(state.lags)", "False"),
    ("rows of the node in front", KangarooDrafter.take, "hidden(start,", "hidden(start - 1,"),
    ("trees as chains", KangarooDrafter.take, "state.nodes(own, trees, ", "own.chain("),
    ("no rows", KangarooDrafter.take, "self._write_verified(", "len("),
    ("root of the first", CopyingDrafter.draft, "[b].tokens[-1]", "[0].tokens[-1]"),
    ("the others do not draft", CopyingDrafter.draft, "if any(asked)", "if False"),
    ("rows that wait are forgotten", KangarooDrafter.take, "self._write_up(", "len("),
]


@pytest.mark.parametrize(
    ("function", "old", "new"), [pytest.param(*mutant, id=name) for name, *mutant in MUTANTS]
)
def test_mutants_are_killed(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], old: str, new: str
) -> None:
    monkeypatch.setattr(function, "__code__", mutated(function, old, new))
    try:
        right = all_known()
    except (ValueError, IndexError, RuntimeError, AssertionError, TypeError):
        right = False
    assert not right
