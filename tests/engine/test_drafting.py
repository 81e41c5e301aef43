"""Every option of drafting is done or refused; none is ignored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import GenerationConfig

from kangaroo.config import MAX_TOP_K, MAX_TREE_NODES, DraftConfig
from kangaroo.engine.drafting import DRAFT_OPTIONS, draft_config, taken
from kangaroo_kernels import draft_head, nodes

DEPLOYED = DraftConfig(exit_layer=2, max_depth=5, confidence=0.7, adaptive=True)
NUM_LAYERS = 4


def of(deployed: DraftConfig | None = DEPLOYED, **options: Any) -> DraftConfig:
    return draft_config(deployed, NUM_LAYERS, options)


def test_nothing_given_is_the_deployed_rule() -> None:
    assert of() == of(**dict.fromkeys(DRAFT_OPTIONS)) == DEPLOYED
    assert DEPLOYED.draft == "chain"


def test_what_is_given_rules() -> None:
    assert of(max_depth=3, confidence=0.1) == replace(DEPLOYED, max_depth=3, confidence=0.1)
    assert of(draft="chain", max_depth=3) == replace(DEPLOYED, max_depth=3)
    tree = of(draft="tree", draft_top_k=4, max_nodes=32, confidence=0.2)
    assert (tree.draft, tree.draft_top_k, tree.max_nodes) == ("tree", 4, 32)
    assert (tree.max_depth, tree.confidence) == (5, 0.2)


def test_trees_have_the_papers_rule_unless_another_is_given() -> None:
    """The deployed confidence was tuned for chains."""
    tree = of(draft="tree")
    assert (tree.draft_top_k, tree.confidence, tree.max_nodes, tree.max_depth) == (10, 0.4, 16, 5)


@pytest.mark.parametrize(
    ("options", "depth"),
    [
        ({}, 5),
        ({"draft": "off"}, 0),
        ({"max_depth": 0}, 0),
        ({"draft": "tree"}, 5),
        ({"draft": "tree", "tree_widths": [2, 1, 1, 1, 1, 1, 1]}, 7),
        ({"draft": "tree", "tree_widths": [2]}, 1),
    ],
)
def test_depth(options: dict[str, Any], depth: int) -> None:
    assert of(**options).depth == depth


def test_limits_are_those_of_the_kernels() -> None:
    assert (MAX_TREE_NODES, MAX_TOP_K) == (nodes.MAX_TREE_NODES, draft_head.MAX_K)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draft": "forest"}, r"draft: expected one of \('off', 'chain', 'tree'\), got 'forest'"),
        ({"draft": "tree", "draft_top_k": 0}, "draft_top_k: expected 1 to 16, got 0"),
        ({"draft": "tree", "draft_top_k": 17}, "draft_top_k: expected 1 to 16, got 17"),
        ({"draft": "tree", "max_nodes": 0}, "max_nodes: expected 1 to 64, got 0"),
        ({"draft": "tree", "max_nodes": 65}, "max_nodes: expected 1 to 64, got 65"),
        ({"draft": "tree", "max_depth": 64}, "max_depth: expected 0 to 63, got 64"),
        ({"draft": "tree", "tree_widths": [3, 0]}, r"tree_widths: expected each 1 to 16, got .*"),
        ({"draft": "tree", "tree_widths": [17]}, r"tree_widths: expected each 1 to 16, got .*"),
        (
            {"draft": "tree", "tree_widths": [8, 8]},
            "tree_widths: expected at most 64 nodes, got 73",
        ),
    ],
)
def test_values_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        of(**options)


@pytest.mark.parametrize("name", ["draft_top_k", "max_nodes", "tree_widths"])
@pytest.mark.parametrize("draft", [None, "chain", "off"])
def test_options_of_trees_need_a_tree(name: str, draft: str | None) -> None:
    message = f"^{name}: has no effect on draft={draft or 'chain'!r}; leave it out"
    with pytest.raises(ValueError, match=message):
        of(draft=draft, **{name: [2] if name == "tree_widths" else 2})


def test_drafting_is_adaptive_unless_its_shape_or_more_is_given() -> None:
    assert of(max_depth=3).adaptive
    assert of(draft="tree").adaptive
    assert not of(max_depth=3, adaptive=False).adaptive
    assert not of(draft="tree", tree_widths=[2]).adaptive
    assert of(draft="tree", tree_widths=[2], adaptive=True).adaptive


def test_costs_are_of_adaptive_drafting() -> None:
    assert of(costs=[0.2, 0.1]).costs == (0.2, 0.1)
    with pytest.raises(ValueError, match="^costs: have no effect on drafting that is not adaptive"):
        of(costs=[0.2, 0.1], adaptive=False)


def test_fields_of_drafting_are_taken_out() -> None:
    """Speculative sampling cannot be asked to be adaptive."""
    options = {"draft_sampling": "rejection", "max_depth": 3, "seed": 1}
    assert taken(options) == {"max_depth": 3}
    assert options == {"draft_sampling": "rejection", "seed": 1}
    assert taken({"draft_sampling": "coupled", "adaptive": True}) == {"adaptive": True}
    with pytest.raises(ValueError, match="^adaptive: has no effect on draft_sampling"):
        taken({"draft_sampling": "rejection", "adaptive": True})


def test_prompt_lookup_as_transformers_says_it() -> None:
    """By an option or in the caller's config, where an option stands above it."""
    tokens, size = "prompt_lookup_num_tokens", "max_matching_ngram_size"
    options: dict[str, Any] = {tokens: 10, "max_length": 9}
    assert taken(options) == {"lookup": 2, "lookup_depth": 10}
    assert options == {tokens: None, size: None, "max_length": 9}  # refused if said to the end
    config = GenerationConfig(**{tokens: 7, size: 3})
    assert taken({}, config) == {"lookup": 3, "lookup_depth": 7}
    assert taken({tokens: 5}, config) == {"lookup": 3, "lookup_depth": 5}
    assert taken({tokens: None}, config) == {}
    assert taken({size: 3}) == {}
    assert taken({tokens: 5, "lookup": None, "draft": "tree"})["lookup"] == 2
    for ours in ("lookup", "lookup_depth"):
        with pytest.raises(ValueError, match=f"^{ours}: has no effect beside {tokens}; leave one"):
            taken({tokens: 5, ours: 4})
    for wrong in (0, 64, 2.5, "many"):
        with pytest.raises(ValueError, match=f"^{tokens}: expected 1 to 63, got {wrong!r}$"):
            taken({tokens: wrong})
    for wrong in (0, "x"):
        with pytest.raises(ValueError, match=f"^{size}: expected at least 1, got {wrong!r}$"):
            taken({tokens: 5, size: wrong})


@pytest.mark.parametrize("name", ["max_depth", "confidence", "adaptive"])
def test_options_of_drafting_need_drafts(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: has no effect on draft='off'; leave it out"):
        of(draft="off", **{name: 1})


@pytest.mark.parametrize("name", ["draft_top_k", "max_nodes", "max_depth", "confidence"])
def test_a_given_shape_has_no_other_limits(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: has no effect beside tree_widths; leave one"):
        of(draft="tree", tree_widths=[3, 2], **{name: 1})


def test_without_an_adapter() -> None:
    """Nothing can be drafted, and only who says so gets none drafted."""
    for options in ({}, {"draft": "chain"}, {"draft": "tree"}):
        with pytest.raises(ValueError, match=r"^adapter: none is loaded.*draft='off'.*--draft off"):
            of(None, **options)
    assert of(None, draft="off").depth == of(None, max_depth=0).depth == 0


def test_copies() -> None:
    """In front of chains and trees, or alone; what would have no effect is refused."""
    assert of(lookup=3) == replace(DEPLOYED, lookup=3)
    assert of(lookup=3, lookup_depth=5, adaptive=False).lookup_depth == 5
    alone = of(None, lookup=3)
    assert (alone.lookup, alone.lookup_depth, alone.adaptive) == (3, 15, True)
    assert of(lookup=0) == DEPLOYED
    assert (of(draft="tree", lookup=3).draft, of(draft="tree", lookup=3).lookup) == ("tree", 3)
    assert of(None, draft="chain", lookup=3) == alone
    for options, name, where in (
        ({"draft": "off", "lookup": 3}, "lookup", "on draft='off'; leave it out"),
        ({"max_depth": 0, "lookup": 3}, "lookup", "on max_depth=0; leave one of them out"),
        ({"lookup_depth": 3}, "lookup_depth", "without lookup; leave it out"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: has no effect {where}$"):
            of(**options)
    for name, value in (("max_depth", 1), ("confidence", 1), ("draft", "tree")):
        with pytest.raises(ValueError, match=f"^{name}: has no effect without an adapter"):
            of(None, lookup=3, **{name: value})
    for size in (-1, 65):
        with pytest.raises(ValueError, match=f"^lookup: expected 0 to 64, got {size}$"):
            of(lookup=size)
    for depth in (0, 64):
        with pytest.raises(ValueError, match=f"^lookup_depth: expected 1 to 63, got {depth}$"):
            of(lookup=1, lookup_depth=depth)


def test_the_exit_layer_is_the_adapters() -> None:
    with pytest.raises(ValueError, match="^exit_layer: the adapter was trained for 2, got 3$"):
        of(exit_layer=3)
    assert of(exit_layer=3, draft="off").exit_layer == 3
    with pytest.raises(ValueError, match="^exit_layer: expected 1 to 3, got 4$"):
        of(exit_layer=4, draft="off")
