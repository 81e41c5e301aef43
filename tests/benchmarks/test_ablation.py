"""Variants are the engine's adapters where it has such; the page tells what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.ablation import key_of, known, measure
from benchmarks.ablations.bench import Bench
from benchmarks.ablations.page import tables, write_page
from benchmarks.ablations.plots import draw
from benchmarks.ablations.rows import Settings
from benchmarks.ablations.students import Shape, Unrolled, VariantStudent
from benchmarks.ablations.tables import DEEP_PREFIX, PAPER, TABLES, rows_of
from benchmarks.ablations.texts import docstrings
from benchmarks.provenance import ROOT, append
from kangaroo.config import AdapterConfig, AdapterKind, ModelConfig
from kangaroo.models.adapter import Adapter
from kangaroo.models.families import model_config
from kangaroo.models.llama import rope_table
from kangaroo.train.student import AdapterStudent
from kangaroo.train.target import FrozenTarget, States
from tests.engines import CPU, SMALL
from tests.factories import make_checkpoint

LAYERS = 4


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    overrides = SMALL | {"num_hidden_layers": LAYERS}
    return make_checkpoint(tmp_path_factory.mktemp("target"), "llama-gqa-llama3", **overrides)


def random_states(config: ModelConfig) -> States:
    h = torch.randn(4, 2, 12, config.hidden_size)
    positions = torch.tensor([[*range(5), *range(7)], [*range(12)]])
    return States(h[0], h[1], h[2], torch.zeros(2, 12, dtype=torch.int64), h[3], positions)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("paper", Shape(2)),
        ("deep_prefix", Shape(2, deep_layer=LAYERS, successor=True)),
    ],
)
def test_the_engines_adapters_are_among_them(target: Path, kind: AdapterKind, shape: Shape) -> None:
    config = model_config(target)
    own = AdapterStudent(Adapter(AdapterConfig.for_target(config, kind, 2)))
    variant = VariantStudent(shape, config)
    own.module.reset(0)
    own.module.o.data.normal_(0.0, 0.1)
    named = dict(own.module.named_parameters())
    renamed = {"more_norms.0": "deep_norm", "more_norms.1": "successor_norm"}
    for name, p in variant.module.named_parameters():
        p.data.copy_(named.pop(renamed.get(name, name)))
    assert not named
    states, rope = random_states(config), rope_table(config, CPU)
    for mine, theirs in zip(
        variant.hidden(states, rope, (1, 3)), own.hidden(states, rope, (1, 3)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    assert variant.cost(config) == own.cost(config)


SHAPES = sorted({row.shape for row in rows_of(TABLES).values() if row.kind == "adapter"}, key=repr)


def started(target: Path, shape: Shape) -> VariantStudent:
    """A student of about this shape whose adapter does something."""
    shape = replace(shape, exit_layer=1, deep_layer=shape.deep_layer and LAYERS - 1)
    student = VariantStudent(shape, model_config(target))
    student.start(FrozenTarget.load(target, 1, torch.float32, CPU), seed=0)
    for matrix in student.scaled:
        matrix.data.normal_(0.0, 0.1)
    return student


@pytest.mark.parametrize("shape", SHAPES)
def test_a_guess_sees_what_decoding_knows(target: Path, shape: Shape) -> None:
    """Exit states up to its slot, the token in its slot, and of verified slots all."""
    config, student, slot, delta = model_config(target), started(target, shape), 8, 2
    states, rope = random_states(config), rope_table(config, CPU)
    (before,) = student.hidden(states, rope, (delta,))
    states.exit[:, slot + 1 :].normal_()
    states.last[:, slot - delta + 1 :].normal_()
    states.successor[:, slot:].normal_()
    (after,) = student.hidden(states, rope, (delta,))
    torch.testing.assert_close(after[:, slot], before[:, slot], rtol=0, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_parameter_learns(target: Path, shape: Shape) -> None:
    config, student = model_config(target), started(target, shape)
    (out,) = student.hidden(random_states(config), rope_table(config, CPU), (2,))
    head = student.head(1, torch.zeros(config.vocab_size, config.hidden_size))
    (out @ head.T).square().sum().backward() if shape.own_head else out.pow(3).sum().backward()
    for parameter, p in student.module.named_parameters():
        assert p.grad is not None, parameter
        assert p.grad.abs().max() > 0, parameter


def test_unrolled_slots_count_where_decoding_comes_there(target: Path) -> None:
    config, rope = model_config(target), rope_table(model_config(target), CPU)
    own = FrozenTarget.load(target, 1, torch.float32, CPU)
    student = Unrolled(Shape(1, deep_layer=LAYERS, successor=True), config)
    student.start(own, seed=0)
    states = random_states(config)
    # A target that a good half of the guesses agree with.
    first = next(VariantStudent.hidden(student, states, rope, (1,))).detach()
    normed = torch.where(torch.rand(2, 12, 1) < 0.6, first, states.normed)
    states = replace(states, normed=normed)
    truth = (normed @ own.head.T).argmax(-1)
    (out,) = student.hidden(states, rope, (4,))
    (grad,) = torch.autograd.grad(out.sum(), student.module.norm, retain_graph=True)
    agree = [
        (hidden @ own.head.T).argmax(-1) == truth
        for hidden in VariantStudent.hidden(student, states, rope, (1, 2, 3))
    ]
    reached = torch.zeros(2, 12, 1)
    for row in range(2):
        for slot in range(3, 12):
            reached[row, slot] = all(agree[d][row, slot - 3 + d] for d in range(3))
    assert 0 < reached.sum() < 18
    (plain,) = VariantStudent.hidden(student, states, rope, (4,))
    (wanted,) = torch.autograd.grad((plain * reached).sum(), student.module.norm)
    torch.testing.assert_close(grad, wanted)


def test_prose_is_what_sources_say_of_themselves() -> None:
    text = "What it does." * 40
    source = f'"""{text}"""\ndef f():\n    """Short."""\nclass A:\n    """{text}too"""\n'
    assert list(docstrings([source, "def broken(:"])) == [text, f"{text}too"]


def record(seed: int, ratio: float) -> dict[str, Any]:
    rules = [[0.0, 6, ratio, 6.0, 1.0], [0.4, 6, ratio, 3.0, 1.5]]
    text = {"best": rules[1], "full_ratio": 2.0, "agreement": 0.5, "rules": rules}
    numbers = {"parameters": 5, "step_parameters": 7, "cpu_s": 90.0, "refresh_parameters": 0}
    return {"seed": seed, "loss": 3.0, "texts": {"code": text, "prose": text}} | numbers


RACE = {
    "results": [
        {
            "name": "Medusa-1",
            "added_parameters": 6587904,
            "bytes_per_draft_step": 3293184,
            "confidence": 0.6,
            "compression_ratio": 1.4027,
            "drafts_per_round": 1.066,
            "draft_over_plain_round": 0.4532,
            "speedup_median": 0.8613,
        }
    ]
}


def test_the_page_says_what_is_known(tmp_path: Path) -> None:
    found: dict[str, Any] = {name: [] for name in rows_of(TABLES)}
    found |= {PAPER: [record(0, 1.5), record(1, 2.0)], DEEP_PREFIX: [record(1, 3.0)]}
    lines = tables(found)
    assert "| deep_prefix | 1.50 | 1.50 |" in lines["gain"]
    assert any("1.75 (1.50 to 2.00)" in line and "0, 1" in line for line in lines["adapter"])
    assert any("not yet measured" in line for line in lines["adapter"])
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs/ABLATIONS.md").read_text(encoding="utf-8"), encoding="utf-8")
    write_page(page, found, Settings(), RACE)
    once = page.read_text(encoding="utf-8")
    assert "| Medusa-1 | 6,587,904 | 3,293 | 0.6 | 1.40 | 1.07 | 0.45 | 0.86 |" in once
    write_page(page, found, Settings(), RACE)
    assert page.read_text(encoding="utf-8") == once
    write_page(page, found, Settings(), None)
    assert "drafters -->\nNot yet measured.\n<!--" in page.read_text(encoding="utf-8")
    page.write_text(once.replace("ablation: loss", "ablation: los"), encoding="utf-8")
    with pytest.raises(ValueError, match="expected one <!-- ablation: loss -->"):
        write_page(page, found, Settings(), RACE)


def test_equal_records_make_equal_plots(tmp_path: Path) -> None:
    found: dict[str, Any] = {name: [] for name in rows_of(TABLES)}
    found |= {PAPER: [record(0, 1.5), record(1, 2.0)], DEEP_PREFIX: [record(1, 3.0)]}
    draw(tmp_path / "a.svg", found)
    draw(tmp_path / "b.svg", found)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    draw(tmp_path / "b.svg", found | {PAPER: [record(0, 1.5)]})
    assert (tmp_path / "a.svg").read_bytes() != (tmp_path / "b.svg").read_bytes()


def test_records_are_of_rows() -> None:
    rows = [key_of(row, 0, Settings())[0] for row in rows_of(TABLES).values()]
    found = known(ROOT / "benchmarks/results/ablation.jsonl")
    assert found
    assert {key for key, _ in found} <= set(rows)


@pytest.mark.fuzz
def test_a_row_is_trained_and_found_again(tmp_path: Path) -> None:
    settings = Settings(num_steps=3, batch_size=2, num_prompts=2, new_tokens=16)
    bench = Bench(settings, tmp_path)
    row = rows_of(TABLES)[DEEP_PREFIX]
    first = measure(bench, row, seed=1)
    again = measure(Bench(settings, tmp_path), row, seed=1)
    assert first["texts"] == again["texts"]
    append(first, tmp_path / "found.jsonl")
    assert key_of(row, 1, settings) in known(tmp_path / "found.jsonl")
    assert key_of(row, 2, settings) not in known(tmp_path / "found.jsonl")
