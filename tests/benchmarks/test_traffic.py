"""`benchmarks/traffic.py`: the bytes of steps, beside figures worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.models import LLAMA_8B, VICUNA_7B, Model
from benchmarks.subjects import Subject
from benchmarks.traffic import Counter, Traffic
from kangaroo.config import ADAPTER_KINDS, AdapterConfig, AdapterKind
from tests.benchmarks.tiny import made

EMPTY = [0]
COPY_BYTES_PER_S = 4.3e12  # of the design's table


def counter(model: Model, kind: AdapterKind = "paper") -> Counter:
    adapter = AdapterConfig.for_target(model.config, kind, model.exit_layer)
    return Counter(model.config, adapter, itemsize=2)


def milliseconds(traffic: Traffic) -> float:
    return 1e3 * traffic.num_bytes / COPY_BYTES_PER_S


@pytest.mark.parametrize(
    ("model", "gb", "draft_percent", "verify_ms", "round_ms"),
    [(VICUNA_7B, 13.21, 9.1, 2.885, 3.914), (LLAMA_8B, 15.01, 13.4, 3.287, 4.891)],
    ids=lambda value: value.name if isinstance(value, Model) else "",
)
def test_the_table_of_the_design(
    model: Model, gb: float, draft_percent: float, verify_ms: float, round_ms: float
) -> None:
    """It counts the weights of an empty context alone, so all else is well below a thousandth."""
    count = counter(model)
    ar = count.ar_step(EMPTY)
    assert ar.num_bytes / 1e9 == pytest.approx(gb, abs=0.01)
    percent = 100 * count.draft_step(EMPTY).num_bytes / ar.num_bytes
    assert percent == pytest.approx(draft_percent, abs=0.05)
    assert milliseconds(count.verify(EMPTY, 1)) == pytest.approx(verify_ms, rel=1e-3)
    assert milliseconds(count.round(EMPTY, 3)) == pytest.approx(round_ms, rel=2e-3)


def test_keys_and_values_of_a_thousand_tokens() -> None:
    """512 KiB a token of Vicuna-7B, 128 KiB of Llama-3.1-8B; each sequence reads its own."""
    for model, kib in ((VICUNA_7B, 512), (LLAMA_8B, 128)):
        read = counter(model).ar_step([999, 1999]).kv
        assert read == 3000 * kib * 1024


def test_nothing_but_the_new_rows_is_written() -> None:
    count, rows = counter(LLAMA_8B), 2 * 5
    logits = rows * LLAMA_8B.vocab * 4
    assert count.verify([7, 9], 5).written == logits + rows * 30 * 2 * 8 * 128 * 2
    assert count.draft_step([7, 9]).written == 2 * (2 + 1) * 2 * 8 * 128 * 2


def test_a_batch_reads_the_weights_once() -> None:
    count = counter(VICUNA_7B)
    one, four = count.verify(EMPTY, 4), count.verify([0] * 4, 16)
    assert one.weights == four.weights
    assert 16 * one.written == four.written


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_the_weights_are_those_that_there_are(kind: AdapterKind, tied: bool) -> None:
    ours = made(kind, num_layers=3, exit_layer=1, tied=tied, family="qwen3")
    count = Counter(ours.model.config, ours.adapter.config, itemsize=4)
    rest = weights_of(ours) - ours.model.weights.embed.nbytes * (not tied)
    shallow_again = count.shallow(EMPTY).weights - count.embedding(1).weights
    head_again = count.head().weights
    counted = count.round(EMPTY, 1).weights - 2 * count.embedding(1).weights
    # The chain of one draft reads the shared layers twice, and the head twice.
    own_norm = ours.adapter.norm.nbytes
    norm_again = ours.adapter.input_norm.nbytes * (kind == "deep_prefix")
    assert counted == rest + shallow_again + head_again - own_norm + norm_again


def weights_of(ours: Subject) -> int:
    """Bytes of target and adapter, each tensor once."""
    weights = ours.model.weights
    tensors = [weights.embed, weights.norm, weights.lm_head, *ours.adapter.parameters()]
    for layer in weights.layers:
        tensors += [getattr(layer, name) for name in layer.__slots__]
    distinct = {t.data_ptr(): t.nbytes for t in tensors if t is not None}
    return sum(distinct.values())
