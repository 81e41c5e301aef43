"""Captured rounds on a GPU say, draft and keep what the loop does, and never wait for the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.head import drafting_head
from kangaroo.engine.batch import Batch
from kangaroo.engine.capture import CapturedRounds
from kangaroo.engine.decode import Decoder, Round
from kangaroo.engine.drafting import kangaroo_drafter
from kangaroo.engine.graphs import GraphDecoder
from kangaroo.models.llama import Llama
from kangaroo_kernels import testing
from tests.engine.test_graphs import CHAIN, DRAFTS, assert_same, counts, decode, request_of
from tests.engine.test_sampled_graphs import LAWS
from tests.engines import SMALL, load, make_adapter, sampler_of
from tests.factories import make_checkpoint

pytestmark = pytest.mark.gpu

EXIT_LAYER = 2
COPIES: list[dict[str, Any]] = [each | {"lookup": 1} for each in DRAFTS]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.fixture(params=DTYPES, ids=str)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Llama]:
    with torch.device("cpu"):  # what is not said to be elsewhere
        overrides = SMALL | {"num_hidden_layers": 3, "max_position_embeddings": 300}
        path = make_checkpoint(tmp_path, "qwen3", **overrides)
        yield load(path, "triton", request.param, torch.device("cuda"))


def decoders(
    model: Llama, kind: AdapterKind | None, confidence: float, draft: dict[str, Any] = CHAIN
) -> tuple[Decoder, Decoder]:
    """Step by step, and captured."""
    limits = {"max_depth": 6} if kind else {"max_depth": 0, "tree_widths": ()}
    config = DraftConfig(EXIT_LAYER, confidence=confidence, **draft | limits)
    adapter = make_adapter(model, kind, EXIT_LAYER) if kind else None
    head = drafting_head(model.weights.lm_head)
    drafter = kangaroo_drafter(model, adapter, config, head, sampled=True, coupled=True)
    return Decoder(model, drafter, config), GraphDecoder(drafter, CapturedRounds)


@pytest.mark.parametrize("draft", [*DRAFTS, *COPIES])
@pytest.mark.parametrize("confidence", [0.0, 0.12])
@pytest.mark.parametrize("kind", [None, *ADAPTER_KINDS])
def test_every_round_is_that_of_the_loop(
    model: Llama, kind: AdapterKind | None, confidence: float, draft: dict[str, Any]
) -> None:
    plain, graphs = decoders(model, kind, confidence, draft)
    for prompt_len in (1, 2, 64, 100):
        expected = decode(plain, request_of(model, prompt_len, 150))
        assert_same(decode(graphs, request_of(model, prompt_len, 150)), expected, plain.config)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("draft", [*DRAFTS, *COPIES])
@pytest.mark.parametrize("kind", [None, *ADAPTER_KINDS])
def test_every_sampled_round_is_that_of_the_loop(
    model: Llama, kind: AdapterKind | None, draft: dict[str, Any], law: dict[str, Any]
) -> None:
    plain, graphs = decoders(model, kind, 0.2, draft)
    for prompt_len in (2, 64):
        sampled = {"sampler": sampler_of(prompt_len, **law)}
        expected = decode(plain, request_of(model, prompt_len, 150, **sampled))
        ours = decode(graphs, request_of(model, prompt_len, 150, **sampled))
        assert_same(ours, expected, plain.config)


@pytest.mark.parametrize("law", [None, LAWS[1]])
@pytest.mark.parametrize("draft", [*DRAFTS, *COPIES])
def test_nothing_waits_for_the_host(
    model: Llama, draft: dict[str, Any], law: dict[str, Any] | None
) -> None:
    """Wherever the end falls in the last path."""
    _, graphs = decoders(model, "paper", 0.12, draft)
    sampler = sampler_of(**law) if law else None
    for num_new in range(96, 101):
        rounds = graphs.generate(request_of(model, 20, num_new, sampler=sampler))
        for _ in range(2):  # the first may be of the host, the second is captured
            next(rounds)
        torch.cuda.set_sync_debug_mode("error")
        try:
            assert list(rounds)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("draft", [CHAIN, COPIES[0]])
def test_memory_is_what_it_was(model: Llama, draft: dict[str, Any]) -> None:
    """After consumers that left early, and ends of all kinds."""
    _, graphs = decoders(model, "deep_prefix", 0.0, draft)
    decode(graphs, request_of(model, 20, 200))
    before = torch.cuda.memory_allocated()
    for n in range(200):
        rounds = graphs.generate(request_of(model, 20, 200))
        for _ in range(n % 4):
            next(rounds)
        rounds.close()  # type: ignore[attr-defined]
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("draft", [*DRAFTS, COPIES[0]])
def test_logits_that_rounds_keep(model: Llama, draft: dict[str, Any]) -> None:
    """Of a graph, though memory of others lies beside them: those of the loop, bit by bit."""
    plain, graphs = decoders(model, "deep_prefix", 0.0, draft)
    plain.keep_logits = graphs.keep_logits = True
    lengths = [(20, 60), (41, 50), (7, 70)]
    alone = [list(plain.generate(request_of(model, *each))) for each in lengths]
    ours = [list(graphs.generate(request_of(model, *each))) for each in lengths]
    batch = Batch(graphs, 3, 100)
    together: dict[int, list[Round]] = {batch.add(request_of(model, *e)): [] for e in lengths}
    while len(batch):
        for number, latest in batch.step().items():
            together[number].append(latest)
    for expected, *found in zip(alone, ours, together.values(), strict=True):
        for rounds in found:
            testing.assert_same_bits(kept(rounds), kept(expected))


def kept(rounds: list[Round]) -> Tensor:
    return torch.cat([r.logits for r in rounds if r.logits is not None])


@pytest.mark.parametrize("draft", [*DRAFTS, *COPIES])
@pytest.mark.parametrize("kind", [None, *ADAPTER_KINDS])
def test_batches(model: Llama, kind: AdapterKind | None, draft: dict[str, Any]) -> None:
    """A graph for every number of sequences; each says what it says alone."""
    plain, graphs = decoders(model, kind, 0.12, draft)
    lengths = [(1, 30), (2, 9), (40, 31), (63, 5), (17, 1), (70, 20)]
    batch = Batch(graphs, 3, 100)
    done: dict[int, list[Round]] = {batch.add(request_of(model, *each)): [] for each in lengths}
    while len(batch):
        for number, latest in batch.step().items():
            done[number].append(latest)
    for number, each in enumerate(lengths):
        expected = [t for tokens, *_ in decode(plain, request_of(model, *each)) for t in tokens]
        assert [t for tokens, *_ in counts(done[number]) for t in tokens] == expected
