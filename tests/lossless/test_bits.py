"""L1: with speculation on or off, every token is chosen from the same logits, bit for bit.

The keys and values that a run leaves behind are the same bits too: the next token depends on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.kangaroo import KangarooDrafter
from kangaroo.draft.tree import DraftTree
from kangaroo.draft.whole import chain_drafter
from kangaroo.engine import decode
from kangaroo.engine.state import DecodeState
from kangaroo.models.llama import Llama
from kangaroo_kernels import testing
from tests.engines import (
    QUICK_BACKENDS,
    SMALL,
    NoisyDrafter,
    PerfectDrafter,
    Run,
    WrongDrafter,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
    poison,
)
from tests.factories import FAMILIES, make_checkpoint

NUM_LAYERS = 4
# Together past the first chunk of the caches, in the middle of a block.
PROMPT_LEN, NUM_TOKENS = 41, 45
DEPTHS = {"native": range(1, 7), "reference": (1, 2, 6)}
CONFIDENCES = (0.0, 0.3, 1.0)
SCRIPTED = (PerfectDrafter, NoisyDrafter, WrongDrafter)


@pytest.fixture(scope="module", params=QUICK_BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    path = tmp_path_factory.mktemp("target")
    overrides = SMALL | {"num_hidden_layers": NUM_LAYERS}
    return load(make_checkpoint(path, "llama-gqa-llama3", **overrides), backend)


@pytest.fixture(scope="module")
def plain(model: Llama) -> Run:
    return autoregressive(model, make_prompt(model, PROMPT_LEN), NUM_TOKENS)


def check(run: Run, plain: Run) -> None:
    assert run.tokens == plain.tokens
    testing.assert_same_bits(run.logits, plain.logits)
    testing.assert_same_bits(committed_kv(run), committed_kv(plain))


def committed_kv(run: Run) -> Tensor:
    """Keys and values of all layers and committed slots, wherever the layers were cut."""
    state = run.state
    rows = torch.cat([state.shallow_kv.rows, state.deep_kv.rows])
    return rows[..., : state.prefix_lens[0], :]


def drafters(
    kinds: tuple[type[PerfectDrafter], ...],
    model: Llama,
    plain: Run,
    kind: AdapterKind,
    config: DraftConfig,
) -> Iterator[KangarooDrafter]:
    """Those that know the plain run."""
    adapter = make_adapter(model, kind, config.exit_layer)
    for drafter in kinds:
        yield drafter(model, adapter, config, make_prompt(model, PROMPT_LEN) + plain.tokens)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("exit_layer", range(1, NUM_LAYERS))
def test_any_stopping_rule(
    model: Llama, backend: str, plain: Run, exit_layer: int, kind: AdapterKind
) -> None:
    """A drafter that works as published, however deep and however bold."""
    prompt, num_drafted = make_prompt(model, PROMPT_LEN), set()
    adapter = make_adapter(model, kind, exit_layer)
    for depth in DEPTHS[backend]:
        for confidence in CONFIDENCES:
            drafter = chain_drafter(model, adapter, DraftConfig(exit_layer, depth, confidence))
            run = decoder_of(drafter).run(prompt, NUM_TOKENS)
            check(run, plain)
            num_drafted.update(round_.num_drafted for round_ in run.rounds)
    assert num_drafted >= set(DEPTHS[backend]), "a draft of every length was verified"


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("exit_layer", range(1, NUM_LAYERS))
def test_any_number_accepted(
    model: Llama, backend: str, plain: Run, exit_layer: int, kind: AdapterKind
) -> None:
    """All, some or none of every draft."""
    prompt = make_prompt(model, PROMPT_LEN)
    for depth in DEPTHS[backend]:
        num_accepted = set()
        for drafter in drafters(SCRIPTED, model, plain, kind, DraftConfig(exit_layer, depth)):
            run = decoder_of(drafter).run(prompt, NUM_TOKENS)
            check(run, plain)
            num_accepted.update(round_.num_accepted for round_ in run.rounds)
        assert num_accepted >= {0, 1, depth}


@pytest.mark.parametrize("family", FAMILIES)
def test_any_family(backend: str, family: str, tmp_path: Path) -> None:
    model = load(make_checkpoint(tmp_path, family, seed=1, **SMALL), backend)
    plain = autoregressive(model, make_prompt(model, PROMPT_LEN), NUM_TOKENS)
    for kind in ADAPTER_KINDS:
        for drafter in drafters(SCRIPTED[:2], model, plain, kind, DraftConfig(1)):
            check(decoder_of(drafter).run(make_prompt(model, PROMPT_LEN), NUM_TOKENS), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_any_dtype(backend: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """In 16 bits ties are common, so equal tokens alone would be luck."""
    model = load(make_checkpoint(tmp_path, "qwen3", dtype=dtype, **SMALL), backend, dtype)
    plain = autoregressive(model, make_prompt(model, PROMPT_LEN), NUM_TOKENS)
    for kind in ADAPTER_KINDS:
        for drafter in drafters(SCRIPTED, model, plain, kind, DraftConfig(1)):
            check(decoder_of(drafter).run(make_prompt(model, PROMPT_LEN), NUM_TOKENS), plain)


@pytest.mark.parametrize("chunk", [1, 7, 16, 33, 89])
def test_any_cut_of_the_prompt(model: Llama, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt tokens may pass in any company: how a prompt is cut into passes leaves no trace."""
    prompt = make_prompt(model, 90)
    whole = autoregressive(model, prompt, 9)
    monkeypatch.setattr(decode, "PREFILL_CHUNK", chunk)
    check(autoregressive(model, prompt, 9), whole)
    adapter = make_adapter(model, "deep_prefix", 2)
    drafter = NoisyDrafter(model, adapter, DraftConfig(2), prompt + whole.tokens)
    check(decoder_of(drafter).run(prompt, 9), whole)


@pytest.mark.parametrize("prompt_len", [1, 2, 63, 64, 65])
def test_a_prompt_can_be_written_by_decoding(model: Llama, prompt_len: int) -> None:
    """A token's keys and values are the same whether it was prefilled or decoded."""
    prompt = make_prompt(model, prompt_len)
    whole = autoregressive(model, prompt, 20)
    later = autoregressive(model, prompt + whole.tokens[:12], 8)
    testing.assert_same_bits(later.logits, whole.logits[12:])
    testing.assert_same_bits(committed_kv(later), committed_kv(whole))


class PoisoningDrafter(KangarooDrafter):
    """Leaves NaN in every slot that no one has a right to read."""

    def draft(self, state: DecodeState, max_depths: list[int]) -> list[DraftTree]:
        poison(state)
        return super().draft(state, max_depths)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_forgotten_slots_are_never_read(model: Llama, plain: Run, kind: AdapterKind) -> None:
    """Neither by the target nor by the drafter: what is drafted does not change either."""
    adapter, config = make_adapter(model, kind, 3), DraftConfig(3, 5, 0.1)
    clean, poisoned = (
        decoder_of(drafter(model, adapter, config)).run(make_prompt(model, PROMPT_LEN), NUM_TOKENS)
        for drafter in (KangarooDrafter, PoisoningDrafter)
    )
    check(clean, plain)
    check(poisoned, plain)
    for a, b in zip(clean.rounds, poisoned.rounds, strict=True):
        assert (a.tokens, a.num_drafted) == (b.tokens, b.num_drafted)
    assert 0 < clean.num_accepted < clean.num_drafted


def test_any_number_of_threads(tmp_path: Path) -> None:
    """The native kernels, on a target wide enough for a second thread to be woken."""
    wide: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 1024, "vocab_size": 4096}
    model = load(make_checkpoint(tmp_path, "llama", **(SMALL | wide)), "native")
    prompt, config = make_prompt(model, 70), DraftConfig(1)
    plain = autoregressive(model, prompt, 12)
    adapter = make_adapter(model, "deep_prefix", 1)
    try:
        torch.set_num_threads(2)
        check(autoregressive(model, prompt, 12), plain)
        drafter = NoisyDrafter(model, adapter, config, prompt + plain.tokens)
        check(decoder_of(drafter).run(prompt, 12), plain)
    finally:
        torch.set_num_threads(1)
