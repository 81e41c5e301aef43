"""L1 with trees: on or off, of any shape, the same bits in the logits and in keys and values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kangaroo.config import ADAPTER_KINDS, AdapterKind, DraftConfig
from kangaroo.draft.branching import BranchingDrafter
from kangaroo.models.llama import Llama
from tests.engines import (
    QUICK_BACKENDS,
    SMALL,
    Run,
    ScriptedBranches,
    autoregressive,
    decoder_of,
    load,
    make_adapter,
    make_prompt,
)
from tests.factories import FAMILIES, make_checkpoint
from tests.lossless.test_bits import check

# Trees inside a chunk of the caches, over its end, and behind it.
PROMPT_LEN, NUM_TOKENS = 41, 45
SHAPES: dict[str, dict[str, Any]] = {
    "of the paper": {},
    "narrow": {"draft_top_k": 2, "max_nodes": 12},
    "two nodes": {"max_nodes": 2},
    "largest": {"draft_top_k": 3, "max_nodes": 64},
    "deep": {"draft_top_k": 2, "max_nodes": 32, "max_depth": 20},
    "static": {"tree_widths": (3, 2, 1)},
}


@pytest.fixture(scope="module", params=QUICK_BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    path = tmp_path_factory.mktemp("target")
    overrides = SMALL | {"num_hidden_layers": 4}
    return load(make_checkpoint(path, "llama-gqa-llama3", **overrides), backend)


@pytest.fixture(scope="module")
def plain(model: Llama) -> Run:
    return autoregressive(model, make_prompt(model, PROMPT_LEN), NUM_TOKENS)


def config_of(exit_layer: int = 1, **options: Any) -> DraftConfig:
    return DraftConfig(exit_layer, **({"draft": "tree", "confidence": 0.0} | options))


def scripted(model: Llama, kind: AdapterKind, config: DraftConfig, plain: Run) -> ScriptedBranches:
    adapter = make_adapter(model, kind, config.exit_layer)
    return ScriptedBranches(model, adapter, config, make_prompt(model, PROMPT_LEN) + plain.tokens)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape(model: Llama, plain: Run, shape: str, kind: AdapterKind) -> None:
    """Drafts of the adapter's own, and some that are right at any rank."""
    prompt, config = make_prompt(model, PROMPT_LEN), config_of(2, **SHAPES[shape])
    own = BranchingDrafter(model, make_adapter(model, kind, 2), config)
    check(decoder_of(own).run(prompt, NUM_TOKENS), plain)
    run = decoder_of(scripted(model, kind, config, plain)).run(prompt, NUM_TOKENS)
    check(run, plain)
    assert {round_.num_accepted for round_ in run.rounds} >= {0, 1}


@pytest.mark.parametrize("max_nodes", range(1, 65, 7))
def test_any_number_of_nodes(model: Llama, plain: Run, max_nodes: int) -> None:
    config = config_of(draft_top_k=3, max_nodes=max_nodes)
    run = decoder_of(scripted(model, "paper", config, plain)).run(
        make_prompt(model, PROMPT_LEN), NUM_TOKENS
    )
    check(run, plain)
    assert max(round_.num_drafted for round_ in run.rounds) == max_nodes - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_any_family(backend: str, family: str, tmp_path: Path) -> None:
    model = load(make_checkpoint(tmp_path, family, seed=1, **SMALL), backend)
    prompt = make_prompt(model, PROMPT_LEN)
    plain = autoregressive(model, prompt, NUM_TOKENS)
    drafter = scripted(model, "deep_prefix", config_of(draft_top_k=3), plain)
    check(decoder_of(drafter).run(prompt, NUM_TOKENS), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_any_dtype(backend: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """In 16 bits ties are common, so equal tokens alone would be luck."""
    model = load(make_checkpoint(tmp_path, "qwen3", dtype=dtype, **SMALL), backend, dtype)
    prompt = make_prompt(model, PROMPT_LEN)
    plain = autoregressive(model, prompt, NUM_TOKENS)
    for kind in ADAPTER_KINDS:
        drafter = scripted(model, kind, config_of(draft_top_k=3), plain)
        check(decoder_of(drafter).run(prompt, NUM_TOKENS), plain)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_the_whole_context_can_be_filled(kind: AdapterKind, tmp_path: Path) -> None:
    """A tree has more nodes than tokens are left: none is dropped, no position lies outside."""
    overrides = SMALL | {"max_position_embeddings": PROMPT_LEN + NUM_TOKENS}
    model = load(make_checkpoint(tmp_path, "llama", **overrides), "native")
    prompt = make_prompt(model, PROMPT_LEN)
    plain = autoregressive(model, prompt, NUM_TOKENS)
    config = config_of(max_nodes=64, max_depth=40, draft_top_k=4)
    run = decoder_of(scripted(model, kind, config, plain)).run(prompt, NUM_TOKENS)
    check(run, plain)
