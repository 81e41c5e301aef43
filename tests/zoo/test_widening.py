"""A widened model says what the small one says, token by token and draft by draft."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from kangaroo.config import ADAPTER_KINDS, AdapterKind
from kangaroo.engine.loading import load_bound_adapter, target_path
from kangaroo.evals.prompts import held_out_prompts
from kangaroo.models.weights import EMBED, HEAD, NORM, target_shapes
from kangaroo.zoo.shapes import SHAPES, Shape
from kangaroo.zoo.widening import Widening
from kangaroo_kernels import UnsupportedError, testing
from tests.engines import CPU, make_prompt
from tests.factories import make_checkpoint
from tests.zoo.small import WAYS, make_small, say, twins

SMALL = Shape("small", 64, 112, 4, 4, 2, 16, 263)
NUM_TOKENS = 16


@dataclass(frozen=True)
class Case:
    """Sizes that make something of their own of a small model.

    Attributes:
        same_order: native kernels add the small model's numbers in the order of the small model.
    """

    family: str
    shape: Shape
    same_order: bool
    shallow_layers: int = 0


CASES = {
    "more of everything": Case(
        "llama-gqa-llama3", Shape("", 256, 256, 7, 16, 4, 16, 320), True, shallow_layers=2
    ),
    "fewer query heads to one of keys": Case(
        "llama-tied", replace(SMALL, hidden_size=256, num_heads=8, num_kv_heads=8), True
    ),
    "more tokens alone": Case("llama", Shape("", 256, 112, 4, 4, 4, 16, 300), True),
    "as it was": Case("llama-linear", SMALL, True),
    "heads of four times the width": Case("llama-gqa-llama3", replace(SMALL, head_dim=64), False),
    "no power of four": Case("llama-linear", Shape("", 160, 128, 5, 8, 2, 32, 270), False),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("small")
    families = {case.family for case in CASES.values()}
    return {family: make_small(root / family, family) for family in sorted(families)}


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("name", CASES)
def test_the_same_function(folders: dict[str, Path], name: str, kind: AdapterKind) -> None:
    case = CASES[name]
    path = folders[case.family]
    small, wide = twins(path, kind, case.shape, "native", shallow_layers=case.shallow_layers)
    assert wide.adapter is not None
    assert wide.adapter.config.exit_layer == 2 + case.shallow_layers
    prompt = make_prompt(small.model, 30)
    budget, num_accepted = testing.Budget(), 0
    for options in WAYS.values():
        ours, theirs = (say(llm, prompt, NUM_TOKENS, **options) for llm in (small, wide))
        assert theirs.tokens == ours.tokens
        drafted = (theirs.num_drafted, theirs.num_accepted)
        assert drafted == (ours.num_drafted, ours.num_accepted)
        num_accepted += ours.num_accepted
        true, padded = theirs.logits.split([263, case.shape.vocab_size - 263], dim=1)
        assert (theirs.logits.softmax(1)[:, 263:] == 0).all()
        if padded.numel():
            assert padded.amax() < true.amin() - 1000
        if case.same_order:
            testing.assert_same_bits(true.contiguous(), ours.logits)
        else:
            budget.add(true, *both_precisions(path, prompt + ours.tokens, NUM_TOKENS))
    assert num_accepted > 0
    if not case.same_order:
        budget.check()


def both_precisions(path: Path, ids: list[int], num_rows: int) -> Iterator[Tensor]:
    """Logits [num_rows, V] behind all but the last of `ids`: in float64, then in float32."""
    for dtype in (torch.float64, torch.float32):
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        with torch.inference_mode():
            yield model(torch.tensor([ids[:-1]])).logits[0, -num_rows:]


@pytest.mark.parametrize(("width", "exact"), [(256, True), (1024, True), (128, False)])
def test_exact_where_the_widths_allow(folders: dict[str, Path], width: int, exact: bool) -> None:
    shape = replace(SMALL, hidden_size=width)
    assert Widening(folders["llama-gqa-llama3"], shape, torch.float32, CPU).exact == exact
    doubled = replace(SMALL, hidden_size=256, head_dim=32)
    assert not Widening(folders["llama-gqa-llama3"], doubled, torch.float32, CPU).exact


def test_tiny_py_with_all_its_drafts() -> None:
    shape = Shape("", 768, 640, 17, 4, 4, 64, 4224)
    small, wide = twins("tiny-py", "deep_prefix", shape, "native")
    (prompt,) = held_out_prompts(small.tokenizer, 1, 80).values()
    for options in ({"draft": "off"}, {"draft": "chain"}, {"draft": "tree"}):
        ours, theirs = (say(llm, prompt, NUM_TOKENS, **options) for llm in (small, wide))
        assert theirs.tokens == ours.tokens
        testing.assert_same_bits(theirs.logits[:, :4096].contiguous(), ours.logits)
        drafted = (theirs.num_drafted, theirs.num_accepted)
        assert drafted == (ours.num_drafted, ours.num_accepted)
        assert (ours.num_accepted > 0) == (options["draft"] != "off")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tokens_that_are_not_there_in_16_bits(folders: dict[str, Path], dtype: torch.dtype) -> None:
    path, shape = folders["llama-tied"], CASES["no power of four"].shape
    _, wide = twins(path, "paper", shape, "reference", dtype)
    assert all(w.isfinite().all() for w in (wide.model.weights.lm_head, wide.model.weights.norm))
    said = say(wide, make_prompt(wide.model, 20), NUM_TOKENS, **WAYS["chain"])
    assert (said.logits.softmax(1)[:, 263:] == 0).all()
    assert max(said.tokens) < 263


def test_what_is_zero(folders: dict[str, Path]) -> None:
    """Of every matrix only the block (extra outputs, true inputs), keys and gates apart."""
    case = CASES["more of everything"]
    widening = Widening(
        folders[case.family], case.shape, torch.float32, CPU, shallow_layers=case.shallow_layers
    )
    true = {"q": 64, "k": 32, "v": 32, "o": 64, "gate": 112, "up": 112, "down": 64}
    for name in target_shapes(widening.wide):
        zeros = widening.read(name) == 0
        if name == EMBED:
            assert not zeros[:, :65].any()
            assert zeros[:, 65:].all()
        elif name == HEAD:
            assert zeros.nonzero().tolist() == [[row, 64] for row in range(263)]
        elif zeros.ndim == 1:
            assert zeros.nonzero().flatten().tolist() == ([] if name == NORM else [64])
        else:
            layer, module = int(name.split(".")[2]), name.split(".")[-2].removesuffix("_proj")
            num_rows, num_live = len(zeros), {"o": 128, "down": 112}.get(module, 64)
            live = 2 <= layer < 6
            extra = num_rows - (true[module] if live else 0)
            expected = 0 if module in ("k", "gate") else extra * num_live
            if module == "o" and live:
                expected += 64 * (128 - 64)  # extra query heads over true values
            assert int(zeros.sum()) == expected, name


def test_extra_dimensions_stay_zero(folders: dict[str, Path]) -> None:
    case = CASES["more of everything"]
    _, wide = twins(
        folders[case.family],
        "deep_prefix",
        case.shape,
        "reference",
        shallow_layers=case.shallow_layers,
    )
    states: list[Tensor] = []
    layers = wide.model.layers

    def recorded(*arguments: Any, **options: Any) -> Tensor:
        states.append(layers(*arguments, **options))
        return states[-1]

    wide.model.layers = recorded  # type: ignore[method-assign]
    say(wide, make_prompt(wide.model, 20), 8, **WAYS["chain"])
    assert len(states) > 8
    constant = wide.model.weights.embed[0, 64]
    assert constant > 0
    for state in states:
        assert (state[..., 64] == constant).all()
        assert (state[..., 65:] == 0).all()
        assert (state[..., :64] != 0).any()


def test_seeds(folders: dict[str, Path]) -> None:
    path, shape, name = folders["llama"], CASES["more tokens alone"].shape, "model.layers.1.mlp."
    first, again, other = (
        Widening(path, shape, torch.float32, CPU, seed=seed).read(f"{name}up_proj.weight")
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    differs = first != other
    assert not differs[:112, :64].any()
    assert differs[:, 64:].all()


def test_what_cannot_be_widened(folders: dict[str, Path], tmp_path: Path) -> None:
    def refused(why: str, path: Path = folders["llama"], shallow: int = 0, **sizes: int) -> None:
        shape = replace(SMALL, num_kv_heads=4, **sizes)
        with pytest.raises((ValueError, UnsupportedError), match=why):
            Widening(path, shape, torch.float32, CPU, shallow_layers=shallow)

    refused("hidden_size: expected at least 64, got 32", hidden_size=32)
    refused("num_layers: expected at least 4, got 3", num_layers=3)
    refused("vocab_size: expected 263, .* got hidden_size 64", vocab_size=264)
    refused("shallow_layers: expected 0 to 0, got 1", shallow=1)
    refused("shallow_layers: expected 0 to 2, got -1", shallow=-1, num_layers=6)
    refused("head_dim: no pair of 24 rotates by", head_dim=24)
    with pytest.raises(ValueError, match="num_kv_heads: expected at least 4, got 2"):
        Widening(folders["llama"], SMALL, torch.float32, CPU)
    for family in ("llama-bias", "qwen3", "mistral"):
        path = make_checkpoint(tmp_path / family, family, num_hidden_layers=1)
        refused("model_type: .* cannot be widened", path)


def test_an_adapter_whose_eps_is_too_small(folders: dict[str, Path]) -> None:
    path = folders["llama"]
    adapter = load_bound_adapter(path / "adapters" / "paper", path, torch.float32, CPU)
    adapter.config = replace(adapter.config, rms_norm_eps=1e-12)
    shape = CASES["more tokens alone"].shape
    with pytest.raises(ValueError, match="rms_norm_eps: expected at least .*, got 1.0e-12"):
        Widening(path, shape, torch.float16, CPU).adapter(adapter)


def test_the_adapters_own_settings(folders: dict[str, Path]) -> None:
    path = folders["llama-tied"]
    adapter = load_bound_adapter(path / "adapters" / "deep_prefix", path, torch.float32, CPU)
    own = {"max_depth": 3, "confidence": 0.25}
    adapter.config = replace(adapter.config, rms_norm_eps=2.0**-10, **own)
    shape = replace(SMALL, hidden_size=256, num_layers=5, num_heads=8)
    config = Widening(path, shape, torch.float32, CPU, shallow_layers=1).adapter(adapter).config
    assert config == replace(
        adapter.config, exit_layer=3, hidden_size=256, num_heads=8, rms_norm_eps=2.0**-12
    )


@pytest.mark.parametrize("name", SHAPES)
def test_tiny_py_fits_into_every_shape(name: str) -> None:
    shape = SHAPES[name]
    wide = Widening(target_path("tiny-py"), shape, torch.bfloat16, CPU).wide
    sizes = {field.name: getattr(shape, field.name) for field in fields(shape)[1:]}
    assert {field: getattr(wide, field) for field in sizes} == sizes
