"""Knobs are checked where they are built, and the message names the knob and what it may be."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from kangaroo.config import ADAPTER_KINDS, AdapterConfig, DraftConfig, ModelConfig

TARGET = ModelConfig(
    family="llama",
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    max_seq_len=64,
    rms_norm_eps=1e-6,
    rope_inv_freq=(1.0,) * 8,
)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("exit_layer", 0, "at least 1, got 0"),
        ("exit_layer", -1, "at least 1, got -1"),
        ("max_depth", -1, "0 to 63, got -1"),
        ("max_depth", 64, "0 to 63, got 64"),
        ("confidence", -0.1, "0 to 1, got -0.1"),
        ("confidence", 1.1, "0 to 1, got 1.1"),
        ("confidence", float("nan"), "0 to 1, got nan"),
    ],
)
def test_stopping_rule_is_checked(field: str, value: Any, expected: str) -> None:
    """By a DraftConfig, and by an AdapterConfig that carries one."""
    with pytest.raises(ValueError, match=f"^{field}: expected {expected}$"):
        replace(DraftConfig(exit_layer=2), **{field: value})
    with pytest.raises(ValueError, match=f"^{field}: expected {expected}$"):
        replace(AdapterConfig.for_target(TARGET, "paper", 2), **{field: value})


@pytest.mark.parametrize("max_depth", [0, 63])
@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_ends_of_every_range_are_inside(max_depth: int, confidence: float) -> None:
    config = DraftConfig(exit_layer=1, max_depth=max_depth, confidence=confidence)
    assert (config.max_depth, config.confidence) == (max_depth, confidence)


def test_the_papers_stopping_rule_is_the_default() -> None:
    assert DraftConfig(exit_layer=2) == DraftConfig(exit_layer=2, max_depth=6, confidence=0.6)


def test_a_draft_fits_a_tree() -> None:
    """The deepest draft and its root are not more nodes than a tree's bit masks hold."""
    from kangaroo_kernels.nodes import MAX_TREE_NODES

    DraftConfig(exit_layer=1, max_depth=MAX_TREE_NODES - 1)
    with pytest.raises(ValueError, match="max_depth"):
        DraftConfig(exit_layer=1, max_depth=MAX_TREE_NODES)


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_adapter_takes_the_geometry_of_its_target(kind: Any) -> None:
    config = AdapterConfig.for_target(TARGET, kind, 3)
    assert (config.kind, config.exit_layer) == (kind, 3)
    for field in ("hidden_size", "num_heads", "num_kv_heads", "head_dim", "rms_norm_eps"):
        assert getattr(config, field) == getattr(TARGET, field)


@pytest.mark.parametrize("exit_layer", [-1, 0, 4, 5])
def test_exit_layer_is_inside_the_target(exit_layer: int) -> None:
    """An exit layer behind the last leaves verification nothing to do."""
    with pytest.raises(ValueError, match=f"^exit_layer: expected 1 to 3, got {exit_layer}$"):
        AdapterConfig.for_target(TARGET, "paper", exit_layer)


def test_unknown_adapter_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^kind: expected one of .*'paper'.* got 'eagle'$"):
        replace(AdapterConfig.for_target(TARGET, "paper", 2), kind="eagle")  # type: ignore[arg-type]


def test_deployed_stopping_rule_is_the_adapters() -> None:
    config = replace(AdapterConfig.for_target(TARGET, "paper", 2), max_depth=3, confidence=0.25)
    assert config.draft() == DraftConfig(2, max_depth=3, confidence=0.25, adaptive=True)


def test_nodes_of_a_draft_at_most() -> None:
    chain, tree = DraftConfig(1), DraftConfig(1, draft="tree", draft_top_k=3, max_nodes=9)
    static = DraftConfig(1, draft="tree", tree_widths=(3, 2, 1))
    for config, expected in (
        (chain, (2, 3, 4)),
        (tree, (4, 9, 9)),  # 1 + 3, 1 + 3 + 9
        (static, (4, 10, 16)),
    ):
        assert tuple(config.most_nodes(depth) for depth in (1, 2, 3)) == expected


@pytest.mark.parametrize("costs", [(0.1,), (0.1, 0.2, 0.3), (0.1, -0.1)])
def test_costs_that_cannot_be(costs: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="^costs: expected none or two of at least 0, got"):
        DraftConfig(1, adaptive=True, costs=costs)


@pytest.mark.parametrize(
    "config", [TARGET, DraftConfig(1), AdapterConfig.for_target(TARGET, "paper", 1)]
)
def test_knobs_are_frozen(config: Any) -> None:
    for field in ("hidden_size", "exit_layer"):
        if hasattr(config, field):
            with pytest.raises(FrozenInstanceError):
                setattr(config, field, 1)
