"""Every number of accepted drafts, behind every other, all of them always, and drafts of any depth.

What was verified together leaves the same logits, keys and values as what was decoded one by one.
"""

from __future__ import annotations

from itertools import product

import pytest

from kangaroo.config import ADAPTER_KINDS, MAX_TREE_NODES, AdapterKind, DraftConfig
from kangaroo.draft.whole import chain_drafter
from kangaroo.models.llama import Llama
from kangaroo_kernels import testing
from tests.engines import (
    BACKENDS,
    SMALL,
    PerfectDrafter,
    Run,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
)
from tests.factories import make_checkpoint
from tests.lossless.test_bits import committed_kv

PROMPT_LEN, NUM_TOKENS = 17, 300
DEPTH = 4
SCRIPT = [length for pair in product(range(DEPTH + 1), repeat=2) for length in pair]


@pytest.fixture(scope="module", params=BACKENDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    path = make_checkpoint(tmp_path_factory.mktemp("target"), "llama-gqa-llama3", **SMALL)
    return load(path, str(request.param))


@pytest.fixture(scope="module")
def prompt(model: Llama) -> list[int]:
    return make_prompt(model, PROMPT_LEN)


@pytest.fixture(scope="module")
def plain(model: Llama, prompt: list[int]) -> Run:
    return autoregressive(model, prompt, NUM_TOKENS)


def check(run: Run, plain: Run) -> None:
    """`run` is the beginning of `plain`."""
    count, kv = len(run.tokens), committed_kv(run)
    assert run.tokens == plain.tokens[:count]
    testing.assert_same_bits(run.logits, plain.logits[:count])
    testing.assert_same_bits(kv, committed_kv(plain)[..., : kv.shape[-2], :])


class MistakenDrafter(PerfectDrafter):
    """Wrong at some positions, and right at all others."""

    wrong: set[int]

    def say(self, position: int) -> tuple[int, float]:
        token, confidence = super().say(position)
        return (token + (position in self.wrong)) % self.model.config.vocab_size, confidence


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_every_accepted_length_behind_every_other(
    model: Llama, prompt: list[int], plain: Run, kind: AdapterKind
) -> None:
    """The first mistake of a round stands where its script says, and none where all are right."""
    config = DraftConfig(1, DEPTH, confidence=0.0)
    drafter = MistakenDrafter(model, make_adapter(model, kind, 1), config, prompt + plain.tokens)
    drafter.wrong, position = set(), len(prompt)
    for length in SCRIPT:
        drafter.wrong |= {position + length} if length < DEPTH else set()
        position += length + 1
    run = decoder_of(drafter).run(prompt, position - len(prompt))
    assert [round_.num_accepted for round_ in run.rounds] == SCRIPT
    check(run, plain)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_a_hundred_rounds_accepted_in_full(
    model: Llama, prompt: list[int], plain: Run, kind: AdapterKind
) -> None:
    """The last draft of each has been verified, but not drafted behind: its rows are there too."""
    config = DraftConfig(1, max_depth=2)
    drafter = PerfectDrafter(model, make_adapter(model, kind, 1), config, prompt + plain.tokens)
    run = decoder_of(drafter).run(prompt, NUM_TOKENS)
    assert [round_.num_accepted for round_ in run.rounds] == [2] * 100
    check(run, plain)


@pytest.mark.parametrize("model", ["native"], indirect=True)
@pytest.mark.parametrize("depth", [7, 15, 16, 31, 32, MAX_TREE_NODES - 1])
def test_any_depth(model: Llama, prompt: list[int], plain: Run, depth: int) -> None:
    """Of one tile of rows and of several: drafts that are right, and the adapter's own."""
    config, adapter = DraftConfig(1, depth, confidence=0.0), make_adapter(model, "deep_prefix", 1)
    num_tokens = 2 * depth + 5
    perfect = PerfectDrafter(model, adapter, config, prompt + plain.tokens)
    for drafter in (perfect, chain_drafter(model, adapter, config)):
        run = decoder_of(drafter).run(prompt, num_tokens)
        assert run.rounds[0].num_drafted == depth
        check(run, plain)
