"""How trees grow: parents first, inside every limit, the most probable paths first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from kangaroo.config import DraftConfig
from kangaroo.draft.growth import DynamicGrowth, Ranking, growth_of
from kangaroo.draft.tree import DraftTree

Rank = Callable[[DraftTree, int], Ranking]  # what the drafter thinks of the tokens behind a node


def config_of(**options: Any) -> DraftConfig:
    return DraftConfig(exit_layer=1, draft="tree", **options)


def grow(config: DraftConfig, rank: Rank, max_depth: int | None = None) -> tuple[DraftTree, list]:
    """The tree, and its length behind every pass; nodes of the last pass are never ranked."""
    tree, ends = DraftTree.root(0), [1]
    growth = growth_of(tree, config, config.depth if max_depth is None else max_depth)
    start = 0
    while growth.open:
        newest = range(start, len(tree))
        start = len(tree)
        growth.extend([rank(tree, node) for node in newest])
        assert len(tree) > start, "a pass without nodes"
        ends.append(len(tree))
    return tree, ends


def noise(seed: int, k: int) -> Rank:
    """Peaked at some nodes, flat at others; a node's own, so that order of asking is no matter."""

    def rank(tree: DraftTree, node: int) -> Ranking:
        path = hash((seed, node, tree.tokens[node]))
        generator = torch.Generator().manual_seed(path % 2**31)
        peak = 6 * torch.rand((), generator=generator)
        logits = peak * torch.randn(50, generator=generator)
        best = logits.softmax(-1).topk(k)
        return best.indices.tolist(), best.values.tolist()

    return rank


def given(rows: dict[int, Sequence[float]], default: Sequence[float] = (0.5, 0.3)) -> Rank:
    """Probabilities by the node's token; the tokens behind token t are 10 t + 1, 10 t + 2, ..."""

    def rank(tree: DraftTree, node: int) -> Ranking:
        token = tree.tokens[node]
        row = rows.get(token, default)
        return [10 * token + 1 + n for n in range(len(row))], row

    return rank


def check_laws(tree: DraftTree, config: DraftConfig, max_depth: int) -> None:
    assert len(tree) <= config.max_nodes
    assert max(tree.depths) <= max_depth
    assert tree.parents[0] == -1
    assert all(0 <= parent < node for node, parent in enumerate(tree.parents) if node)
    siblings = list(zip(tree.parents, tree.tokens, strict=True))
    assert len(set(siblings)) == len(siblings), "a token twice behind one node"


@pytest.mark.parametrize("max_nodes", [1, 2, 3, 7, 16, 17, 33, 64])
@pytest.mark.parametrize("max_depth", [0, 1, 2, 6, 40])
@pytest.mark.parametrize("k", [1, 2, 10])
def test_laws_of_every_tree(max_nodes: int, max_depth: int, k: int) -> None:
    """Every limit is kept, and no node of the budget is left over that could have been drafted."""
    for confidence in (0.0, 0.3, 1.0):
        config = config_of(
            max_nodes=max_nodes, max_depth=max_depth, draft_top_k=k, confidence=confidence
        )
        for seed in range(5):
            tree, ends = grow(config, noise(seed, k))
            check_laws(tree, config, max_depth)
            assert tree.num_passes == len(ends) - 1 <= max_depth
            if max_depth and k == 10:
                assert len(tree) >= min(max_nodes, 1 + k)
            if max_depth == 0:
                assert len(tree) == 1


def test_the_budget_is_spent() -> None:
    for seed in range(20):
        tree, _ = grow(config_of(max_nodes=64, confidence=0.0), noise(seed, 10))
        assert len(tree) == 64


@pytest.mark.parametrize("confidence", [0.0, 0.2, 0.5, 1.0])
def test_with_one_token_behind_a_node_it_is_the_chain(confidence: float) -> None:
    """Of the same depth and confidence: the token that was not sure enough is the last."""
    config = config_of(draft_top_k=1, confidence=confidence)
    lengths = set()
    for seed in range(30):
        rank, chain = noise(seed, 1), DraftTree.root(0)
        while len(chain) <= config.max_depth:
            (token,), (probability,) = rank(chain, len(chain) - 1)
            chain.add(token, len(chain) - 1)
            if probability < confidence:
                break
        tree, _ = grow(config, rank)
        assert tree == chain
        assert tree.is_chain
        lengths.add(len(tree))
    assert lengths == {7} if confidence == 0.0 else len(lengths) > 1 or lengths == {2}


def test_a_path_stops_behind_an_unsure_node_and_others_go_on() -> None:
    """Token 1's children are kept, for they are probable; nothing is drafted behind them."""
    rows = {0: (0.5, 0.4), 1: (0.3, 0.3), 2: (0.9, 0.1)}
    tree, _ = grow(config_of(confidence=0.4, max_nodes=12, max_depth=4), given(rows))
    children_of = {t: [] for t in tree.tokens}
    for node in range(1, len(tree)):
        children_of[tree.tokens[tree.parents[node]]].append(tree.tokens[node])
    assert {11, 12} <= set(tree.tokens)
    assert children_of[11] == children_of[12] == []
    assert children_of[21]
    assert max(tree.depths) == 4


def test_as_sure_as_asked_for_is_sure_enough() -> None:
    tree, _ = grow(config_of(confidence=0.5), given({}, (0.5,)))
    assert max(tree.depths) == 6
    tree, _ = grow(config_of(confidence=0.5001), given({}, (0.5,)))
    assert tree.depths == [0, 1]


def test_the_most_probable_paths_are_drafted_behind() -> None:
    """Two passes of one node each, then the leaves: token 1 has 0.74 and 11 0.87 of what stands
    behind their parents; then 111 has 0.63, and of those that waited 2 has 0.26, 12 0.1.
    """
    rows = {0: (0.6, 0.3), 1: (0.7, 0.2), 11: (0.9, 0.05)}
    tree, ends = grow(config_of(confidence=0.0, max_nodes=6, max_depth=3), given(rows))
    assert ends == [1, 2, 3, 6]
    assert tree.tokens == [0, 1, 11, 111, 2, 12]
    assert tree.parents == [-1, 0, 1, 2, 0, 1]


def test_probabilities_are_sharpened_and_shared_by_what_may_follow() -> None:
    """Powers of 1.5 over their sum: 0.49 and 0.09 become 0.343 and 0.027, 0.16 alone is certain."""
    tree = DraftTree.root(0)
    growth = DynamicGrowth(tree, config_of(confidence=0.0, max_nodes=4), 3)
    growth.extend([([1, 2], [0.49, 0.09])])
    growth.extend([([3], [0.16])])
    assert tree.tokens == [0, 1, 3]
    assert growth.probabilities == pytest.approx({0: 1.0, 1: 0.343 / 0.37, 2: 0.343 / 0.37})
    assert [c.probability for c in growth.waiting] == pytest.approx([0.027 / 0.37])


def test_what_is_not_among_the_best_is_not_drafted_behind() -> None:
    """Token 2 may be, but token 1's three children, behind which none may, are all better: no path
    through it could be among the best five.
    """
    rows = {0: (0.8, 0.05), 1: (0.3, 0.3, 0.3)}
    config = config_of(confidence=0.4, max_nodes=5, max_depth=4)
    tree, ends = grow(config, given(rows))
    assert tree.tokens == [0, 1, 11, 12, 13]
    assert ends == [1, 2, 5]
    rows[1] = (0.3, 0.3, 0.002)  # token 2 is the last of the best five: none of its children is
    tree, ends = grow(config, given(rows))
    assert tree.tokens == [0, 1, 11, 12, 2]
    assert ends == [1, 2, 5]
    rows[1] = (0.3, 0.002, 0.002)  # the last but one
    tree, ends = grow(config, given(rows))
    assert tree.tokens[:3] == [0, 1, 2]
    assert len(ends) > 3


@pytest.mark.parametrize("max_nodes", [2, 5, 16, 40])
def test_who_is_drafted_behind_is_among_the_best(max_nodes: int) -> None:
    """Of all paths that were known when it became a node, and not the last of them."""
    for seed in range(20):
        tree = DraftTree.root(0)
        growth = DynamicGrowth(tree, config_of(confidence=0.0, max_nodes=max_nodes), 6)
        rank, start = noise(seed, 10), 0
        while growth.open:
            newest, start = range(start, len(tree)), len(tree)
            growth.extend([rank(tree, node) for node in newest])
            added = [growth.probabilities[node] for node in range(start, len(tree))]
            known = [*growth.probabilities.values(), *(c.probability for c in growth.waiting)]
            if growth.open:
                assert min(added) >= sorted(known, reverse=True)[: max_nodes - 1][-1]


def test_what_is_improbable_waits_and_may_still_be_drafted_behind() -> None:
    """Token 2 is no node at first; when token 1 leads nowhere it is drafted behind."""
    rows = {0: (0.5, 0.4), 1: (0.1, 0.1), 2: (0.9, 0.1)}
    tree, _ = grow(config_of(confidence=0.0, max_nodes=6, max_depth=3), given(rows))
    assert tree.tokens[:3] == [0, 1, 2]
    assert 21 in tree.tokens


def test_ties_go_to_the_older_candidate_and_the_better_rank() -> None:
    """All alike: the first of the root, then the next of the root, never a younger one."""
    flat = (0.5, 0.5, 0.5)
    tree, _ = grow(config_of(confidence=0.0, max_nodes=4, max_depth=1), given({}, flat))
    assert tree.tokens == [0, 1, 2, 3]
    equal = {0: (0.25, 0.25, 0.25), 1: (1.0, 0.5)}  # 11's path is as probable as 2 and 3
    tree, _ = grow(config_of(confidence=0.0, max_nodes=4, max_depth=2), given(equal))
    assert tree.tokens == [0, 1, 2, 3]


def test_growth_is_a_function_of_the_rankings() -> None:
    config = config_of(confidence=0.2, max_nodes=40)
    assert grow(config, noise(3, 10)) == grow(config, noise(3, 10))


@pytest.mark.parametrize(
    ("widths", "ends"), [((1,), [1, 2]), ((3, 2, 1), [1, 4, 10, 16]), ((1, 4), [1, 2, 6])]
)
def test_static_shapes(widths: tuple[int, ...], ends: list[int]) -> None:
    """The same for every ranking, and the children of a node are its best."""
    shapes = set()
    for seed in range(10):
        rank = noise(seed, 10)
        tree, reached = grow(config_of(tree_widths=widths, confidence=1.0, max_nodes=1), rank)
        assert reached == ends
        shapes.add(tuple(tree.parents))
        for node in range(reached[-2]):
            behind = [t for t, p in zip(tree.tokens, tree.parents, strict=True) if p == node]
            assert behind == rank(tree, node)[0][: widths[tree.depths[node]]]
    assert len(shapes) == 1


def test_a_static_shape_is_cut_where_tokens_end() -> None:
    config = config_of(tree_widths=(3, 2, 1))
    assert grow(config, noise(0, 3), max_depth=2)[1] == [1, 4, 10]
    assert len(grow(config, noise(0, 3), max_depth=0)[0]) == 1
