"""grow_tree: every implementation, by hand and against the definition, pass by pass."""

from __future__ import annotations

import random

import pytest
import torch

from kangaroo_kernels.draft_trees import Candidate, Seedbed, choose, widths
from kangaroo_kernels.grow_tree import GrowTree, reference
from tests.kernels import laws
from tests.kernels.growing import Bed, random_passes

FIRST = {"first": 0, "width": 2, "passes_left": 3, "sharpness": 1.0}
PLAIN = [[[0.5, 0.3, 0.2]]]


def bits(*nodes: int) -> int:
    return sum(1 << node for node in nodes)


def test_inner_nodes(grow_tree: GrowTree) -> None:
    """Ten left, three passes: a sixth of ten, rounded up."""
    bed = Bed.of([40], 11, 6, 3)
    bed.grow(grow_tree, torch.tensor(PLAIN), FIRST)
    own = bed.seedbed
    assert own.tokens[0, :3].tolist() == [7, 0, 1]
    assert own.positions[0, :3].tolist() == [40, 41, 41]
    assert own.parents[0, :3].tolist() == [-1, 0, 0]
    assert own.ancestors[0, :3].tolist() == [bits(0), bits(0, 1), bits(0, 2)]
    assert own.paths[0, :3].tolist() == pytest.approx([1.0, 0.5, 0.3])
    assert own.waiting[0, 0].tolist() == pytest.approx([-1.0, -1.0, 0.2])
    assert not bed.trees.nodes.stopped.any()
    # Behind token 0 its best is likely; what waits behind the root comes before 0.3 * 0.4.
    bed.trees.nodes.threshold.fill_(0.5)
    rows = torch.tensor([[[0.9, 0.1, 0.0], [0.4, 0.3, 0.3]]])
    bed.grow(grow_tree, rows, {**FIRST, "first": 1, "passes_left": 2})
    assert own.tokens[0, 3:5].tolist() == [0, 2]
    assert own.parents[0, 3:5].tolist() == [1, 0]
    assert own.ancestors[0, 3:5].tolist() == [bits(0, 1, 3), bits(0, 4)]
    assert own.sure[0, :3].tolist() == [1, 1, 0]


def test_the_last_pass_fills_the_tree_up(grow_tree: GrowTree) -> None:
    bed = Bed.of([40], 5, 6, 3)
    bed.grow(grow_tree, torch.tensor(PLAIN), {**FIRST, "width": 1, "passes_left": 2})
    rows = torch.tensor([[[0.5, 0.3, 0.2]]])
    bed.grow(grow_tree, rows, {**FIRST, "first": 1, "width": 0, "passes_left": 1})
    tree = bed.trees
    assert tree.nodes.num_nodes.item() == 5
    assert tree.nodes.stopped.item() == 1
    # 0.5, and behind it 0.25 and 0.15; behind the root 0.3 and 0.2.
    assert tree.nodes.tokens[0].tolist() == [7, 0, 1, 0, 2]
    assert tree.parents[0].tolist() == [-1, 0, 0, 1, 0]
    assert tree.nodes.positions[0].tolist() == [40, 41, 41, 42, 41]
    assert tree.ancestors[0].tolist() == [
        bits(0), bits(0, 1), bits(0, 2), bits(0, 1, 3), bits(0, 4)
    ]  # fmt: skip


def test_where_none_is_sure_the_rest_are_leaves(grow_tree: GrowTree) -> None:
    bed = Bed.of([3], 16, 12, 3, threshold=0.6)
    bed.grow(grow_tree, torch.tensor(PLAIN), FIRST)
    tree = bed.trees
    assert tree.nodes.num_nodes.item() == 4
    assert tree.nodes.tokens[0].tolist() == [7, 0, 1, 2, *[0] * 12]
    assert tree.parents[0].tolist() == [-1, 0, 0, 0, *[-1] * 12]
    assert tree.nodes.positions[0, 4:].tolist() == [3] * 12
    assert tree.ancestors[0, 4:].tolist() == [bits(node) for node in range(4, 16)]


def test_one_node_that_is_left_goes_to_the_best_of_all(grow_tree: GrowTree) -> None:
    bed = Bed.of([3], 2, 2, 3)
    bed.grow(grow_tree, torch.tensor(PLAIN), FIRST | {"width": 1})
    assert bed.trees.nodes.num_nodes.item() == 2
    assert bed.trees.nodes.stopped.item() == 1


@pytest.mark.parametrize("passes_left", [1, 3])
def test_a_tree_of_its_root_alone(grow_tree: GrowTree, passes_left: int) -> None:
    bed = Bed.of([3], 1, 2, 3)
    bed.grow(grow_tree, torch.tensor(PLAIN), FIRST | {"width": 1, "passes_left": passes_left})
    assert bed.trees.nodes.num_nodes.item() == 1
    assert bed.trees.nodes.tokens.tolist() == [[7]]


def test_ties_go_to_the_older_place_and_the_better_rank(grow_tree: GrowTree) -> None:
    bed = Bed.of([3], 4, 3, 2)
    bed.grow(grow_tree, torch.tensor([[[0.5, 0.5]]]), {**FIRST, "width": 1, "passes_left": 2})
    rows = torch.tensor([[[1.0, 0.0]]])
    bed.grow(grow_tree, rows, {**FIRST, "first": 1, "width": 0, "passes_left": 1})
    assert bed.trees.nodes.tokens[0].tolist() == [7, 0, 1, 0]
    assert bed.trees.parents[0].tolist() == [-1, 0, 0, 1]


def test_what_is_no_number_is_nothing(grow_tree: GrowTree) -> None:
    bed = Bed.of([3], 4, 3, 2)
    bed.grow(grow_tree, torch.full((1, 1, 2), torch.nan), {**FIRST, "passes_left": 1, "width": 0})
    assert bed.trees.nodes.tokens[0, :3].tolist() == [7, 0, 1]
    assert bed.seedbed.waiting[0, 0].tolist() == [0.0, 0.0]


def test_a_tree_that_has_stopped_stays_as_it_was(grow_tree: GrowTree) -> None:
    bed = Bed.of([3, 4, 5], 7, 6, 3)
    bed.trees.nodes.stopped[1] = 1
    before = bed.copy()
    bed.grow(grow_tree, torch.tensor(3 * PLAIN), FIRST)
    for ours, theirs in zip(bed.flat, before.flat, strict=True):
        assert torch.equal(ours[1], theirs[1])
    assert bed.seedbed.tokens[0, 0] == 7
    assert bed.seedbed.tokens[2, 0] == 9


def check_trees(op: GrowTree, seeds: range) -> None:
    """Decisions equal the definition's; probabilities are as near as other exponentials are."""
    sizes = set()
    for seed in seeds:
        torch.manual_seed(seed)
        ours, passes = random_passes(random.Random(seed))
        theirs = ours.copy()
        for tokens, rows, rule in passes:
            for bed, implementation in ((ours, op), (theirs, reference.grow_tree)):
                bed.grow(implementation, rows, rule, tokens)
            for mine, exact in zip(ours.flat, theirs.flat, strict=True):
                torch.testing.assert_close(mine, exact, rtol=1e-12, atol=0)
        assert ours.trees.nodes.stopped.all()
        sizes |= set(ours.trees.nodes.num_nodes.tolist())
    assert len(sizes) > 5


def test_random_trees(fast_grow_tree: GrowTree) -> None:
    check_trees(fast_grow_tree, range(12))


@pytest.mark.fuzz
def test_many_random_trees(fast_grow_tree: GrowTree) -> None:
    check_trees(fast_grow_tree, range(12, 400))


@pytest.mark.parametrize("max_nodes", [1, 2, 3, 16, 17, 40, 64])
@pytest.mark.parametrize("max_depth", [1, 2, 3, 6, 10])
def test_no_pass_wants_more_places_than_it_has(max_nodes: int, max_depth: int) -> None:
    """However few inner nodes the passes in front found; and none is kept that is never wanted."""
    inner, most = widths(max_nodes, max_depth), [0] * max_depth
    for seed in range(100):
        draw, paths = random.Random(seed), [1.0]
        num_sure = [draw.choice((1, max_nodes)) for _ in range(max_depth)]
        num_sure[: seed % max_depth] = [1] * (seed % max_depth)
        for n in range(max_depth):
            waiting = [Candidate(1.0, 0, 0, r < num_sure[n], r) for r in range(max_nodes)]
            chosen, last = choose(waiting, paths, max_nodes, max_depth - n)
            assert len(paths) + len(chosen) <= max_nodes
            if last:
                break
            most[n] = max(most[n], len(chosen))
            paths += [1.0] * len(chosen)
    assert most == inner + [0] * (max_depth - len(inner))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("tokens", torch.zeros(1, 1, 3)),
        ("probabilities", torch.zeros(1, 1, 2)),
        ("max_nodes", 17),
        ("max_nodes", 0),
        ("first", 6),
        ("width", 6),
        ("passes_left", 0),
        ("sharpness", 0.0),
    ],
)
def test_bad_inputs(fast_grow_tree: GrowTree, name: str, bad: object) -> None:
    bed = Bed.of([3], 16, 6, 3)
    tokens = torch.zeros(1, 1, 3, dtype=torch.int64)
    inputs = {"tokens": tokens, "probabilities": torch.tensor(PLAIN), **vars(bed), **FIRST}
    laws.check_refusal(fast_grow_tree, inputs, name, bad)


def test_an_empty_bed_has_the_dtypes_of_the_contract() -> None:
    for name, x in zip(Seedbed._fields, Seedbed.empty(2, 5, 3, torch.device("cpu")), strict=True):
        assert x.is_contiguous(), name
        assert x.shape[:2] == (2, 5), name
