"""verify_tree: every implementation on hand-written trees and against a recursive walk."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kangaroo_kernels.verify_tree import Verdict, VerifyTree
from tests.kernels import laws, naive

VOCAB = 7


def logits_for(choices: list[list[int]], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """[B, N, VOCAB] whose argmax is `choices`."""
    noise = torch.rand(len(choices), len(choices[0]), VOCAB)
    best = torch.nn.functional.one_hot(torch.tensor(choices), VOCAB)
    return (noise + 2 * best).to(dtype)


def check(
    verify_tree: VerifyTree,
    choices: list[list[int]],
    tokens: list[list[int]],
    parents: list[list[int]],
    expected: list[list[int]],
) -> None:
    logits = logits_for(choices)
    num_nodes, successors = len(tokens[0]), torch.full_like(torch.tensor(tokens), -7)
    nodes = torch.tensor(tokens), torch.tensor(parents)
    verdict = verify_tree(logits, *nodes, successors=successors)
    assert successors.tolist() == [
        [choice if node in path else 0 for node, choice in enumerate(row)]
        for row, path in zip(choices, expected, strict=True)
    ]
    padded = [path + [-1] * (num_nodes - len(path)) for path in expected]
    assert verdict.path.tolist() == padded
    assert verdict.path_len.tolist() == [len(path) for path in expected]
    assert verdict.bonus.tolist() == [
        row[path[-1]] for row, path in zip(choices, expected, strict=True)
    ]
    dtypes = verdict.path.dtype, verdict.path_len.dtype, verdict.bonus.dtype
    assert dtypes == (torch.int64, torch.int32, torch.int64)


# name: (target's choice after each node, tokens, parents, accepted path)
TREES: dict[str, tuple[list[int], list[int], list[int], list[int]]] = {
    "root alone": ([3], [5], [-1], [0]),
    "no child accepted": ([1, 2, 3], [0, 4, 2], [-1, 0, 1], [0]),
    "first of a chain": ([4, 1, 3], [0, 4, 2], [-1, 0, 1], [0, 1]),
    "full accept": ([4, 2, 6], [0, 4, 2], [-1, 0, 1], [0, 1, 2]),
    "a sibling accepted": ([3, 1, 1, 1], [0, 1, 2, 3], [-1, 0, 0, 0], [0, 3]),
    "a child of a sibling": (
        [2, 5, 4, 5, 4, 1],
        [0, 1, 2, 5, 4, 4],
        [-1, 0, 0, 1, 1, 2],
        [0, 2, 5],
    ),
    "right token, wrong parent": ([2, 6, 3, 3], [0, 1, 2, 3], [-1, 0, 0, 1], [0, 2]),
    "right token below a rejected node": ([3, 3, 3], [0, 1, 3], [-1, 0, 1], [0]),
    "token of the root again": ([0, 0, 0], [0, 0, 0], [-1, 0, 1], [0, 1, 2]),
    "equal siblings: the first": ([4, 1, 2, 6], [0, 4, 4, 2], [-1, 0, 0, 2], [0, 1]),
    "children far from their parent": (
        [1, 6, 2, 2, 5],
        [0, 1, 3, 4, 6],
        [-1, 0, 0, 0, 1],
        [0, 1, 4],
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_trees(verify_tree: VerifyTree, name: str) -> None:
    choices, tokens, parents, expected = TREES[name]
    check(verify_tree, [choices], [tokens], [parents], [expected])


def test_sequences_of_a_batch_are_walked_apart(verify_tree: VerifyTree) -> None:
    trees = [TREES[name] for name in ("no child accepted", "full accept", "first of a chain")]
    choices, tokens, parents, expected = (list(column) for column in zip(*trees, strict=True))
    check(verify_tree, choices, tokens, parents, expected)


@st.composite
def trees(draw: st.DrawFn) -> tuple[Any, ...]:
    """A batch of trees over few tokens, so that walks go deep."""
    batch, num_nodes = draw(st.integers(1, 3)), draw(st.integers(1, 24))

    def table(low: int, high: int) -> list[list[int]]:
        return [[draw(st.integers(low, high)) for _ in range(num_nodes)] for _ in range(batch)]

    parents = [
        [-1, *(draw(st.integers(max(0, i - 4), i - 1)) for i in range(1, num_nodes))]
        for _ in range(batch)
    ]
    highest = draw(st.integers(0, 2))
    return table(0, highest), table(0, highest), parents


@given(case=trees())
@settings(max_examples=50)
@pytest.mark.thorough
def test_random_trees(verify_tree: VerifyTree, case: Any) -> None:
    choices, tokens, parents = case
    expected = [naive.accepted_path(*tree) for tree in zip(choices, tokens, parents, strict=True)]
    check(verify_tree, choices, tokens, parents, expected)


@pytest.mark.parametrize("tied", [[2, 5], [0, 6], [5, 6, 1], list(range(VOCAB))], ids=str)
def test_ties_go_to_the_lowest_id(
    verify_tree: VerifyTree, dtype: torch.dtype, tied: list[int]
) -> None:
    logits = torch.full((1, 2, VOCAB), -3.0, dtype=dtype)
    logits[:, :, tied] = 1.5
    for token in range(VOCAB):
        verdict = verify_tree(logits, torch.tensor([[0, token]]), torch.tensor([[-1, 0]]))
        assert verdict.path_len.item() == (2 if token == min(tied) else 1)
        assert verdict.bonus.item() == min(tied)


def test_large_vocabulary(verify_tree: VerifyTree) -> None:
    logits = torch.randn(2, 3, 32003)
    choices = logits.argmax(-1)
    tokens = torch.stack([torch.zeros(2, dtype=torch.int64), choices[:, 0], choices[:, 1]], dim=1)
    verdict = verify_tree(logits, tokens, torch.tensor([[-1, 0, 1]] * 2))
    assert verdict.path.tolist() == [[0, 1, 2]] * 2
    assert verdict.bonus.tolist() == choices[:, 2].tolist()


def test_a_verdict_is_written_where_it_is_wanted(verify_tree: VerifyTree) -> None:
    out = Verdict(torch.zeros(1, 3).long(), torch.zeros(1).int(), torch.zeros(1).long())
    tokens, parents = torch.tensor([[0, 4, 2]]), torch.tensor([[-1, 0, 1]])
    assert verify_tree(logits_for([[4, 1, 6]]), tokens, parents, out=out) is out
    assert [part.tolist() for part in out] == [[[0, 1, -1]], [2], [1]]


def test_padding_is_not_accepted(verify_tree: VerifyTree) -> None:
    """Whatever it holds, it is no part of the tree."""
    tokens = torch.tensor([[0, 4, 2]] * 3)
    num_nodes = torch.tensor([1, 2, 3], dtype=torch.int32)
    parents = torch.tensor([[-1, 0, 1]] * 3)
    verdict = verify_tree(logits_for([[4, 2, 6]] * 3), tokens, parents, num_nodes)
    assert verdict.path.tolist() == [[0, -1, -1], [0, 1, -1], [0, 1, 2]]
    assert verdict.path_len.tolist() == [1, 2, 3]
    assert verdict.bonus.tolist() == [4, 2, 6]


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_no_number_chooses_a_token(verify_tree: VerifyTree, dtype: torch.dtype, odd: float) -> None:
    """Its draft is not accepted and there is no bonus token; what is off the path has no say."""
    logits = torch.full((2, 3, 5000), -math.inf, dtype=dtype)
    logits[:, 0, 4] = logits[:, 2, 1] = 0.0
    logits[:, 1, 4500] = odd
    tokens = torch.tensor([[0, 4, 4500], [0, 3, 4500]])
    verdict = verify_tree(logits, tokens, torch.tensor([[-1, 0, 1]] * 2))
    assert verdict.path.tolist() == [[0, 1, -1], [0, -1, -1]]
    assert verdict.bonus.tolist() == [-1, 4]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("logits", torch.zeros(3, VOCAB)),
        ("logits", torch.zeros(1, 3, VOCAB).double()),
        ("tokens", torch.zeros(1, 4, dtype=torch.int64)),
        ("tokens", torch.zeros(1, 3, dtype=torch.int32)),
        ("parents", torch.zeros(1, 2, dtype=torch.int64)),
        ("parents", torch.zeros(1, 3, dtype=torch.int32)),
        ("num_nodes", torch.ones(1, dtype=torch.int64)),
        ("num_nodes", torch.ones(2, dtype=torch.int32)),
        ("successors", torch.ones(1, 2, dtype=torch.int64)),
        ("successors", torch.ones(1, 3, dtype=torch.int32)),
        ("choices", torch.ones(1, 2, dtype=torch.int64)),
        ("choices", torch.ones(1, 3, dtype=torch.int32)),
    ],
)
def test_bad_inputs(fast_verify_tree: VerifyTree, name: str, bad: torch.Tensor) -> None:
    tokens, parents = torch.tensor([[0, 1, 2]]), torch.tensor([[-1, 0, 1]])
    inputs = {"logits": torch.zeros(1, 3, VOCAB), "tokens": tokens, "parents": parents}
    laws.check_refusal(fast_verify_tree, inputs, name, bad)


def test_choices_in_place_of_the_argmax(verify_tree: VerifyTree) -> None:
    """The walk goes by them, -1 ends it, and logits are not read."""
    choices, tokens, parents, expected = TREES["children far from their parent"]
    logits = torch.full((1, len(tokens), VOCAB), math.nan)
    nodes = torch.tensor([tokens]), torch.tensor([parents])
    successors = torch.full_like(nodes[0], -7)
    made = torch.tensor([choices])
    verdict = verify_tree(logits, *nodes, successors=successors, choices=made)
    assert verdict.path[0, : len(expected)].tolist() == expected
    assert verdict.bonus.tolist() == [choices[expected[-1]]]
    made[0, expected[-1]] = -1
    verdict = verify_tree(logits, *nodes, successors=successors, choices=made)
    assert verdict.path_len.tolist() == [len(expected)]
    assert verdict.bonus.tolist() == [-1]
    assert successors[0].tolist() == [
        max(choice, 0) if node in expected else 0 for node, choice in enumerate(made[0].tolist())
    ]


def test_nothing_follows_where_nothing_was_chosen(verify_tree: VerifyTree) -> None:
    """Not even a node that names no token either."""
    logits = torch.full((1, 2, VOCAB), -math.inf)
    tokens, parents = torch.tensor([[5, -1]]), torch.tensor([[-1, 0]])
    for choices in (None, torch.full((1, 2), -1)):
        verdict = verify_tree(logits, tokens, parents, choices=choices)
        assert verdict.path.tolist() == [[0, -1]]
        assert (verdict.path_len.item(), verdict.bonus.item()) == (1, -1)


@pytest.mark.parametrize("choice", [-2, VOCAB])
def test_impossible_choices(fast_verify_tree: VerifyTree, choice: int) -> None:
    laws.needs_values_on_the_host()
    tokens, parents = torch.tensor([[0, 1, 2]]), torch.tensor([[-1, 0, 1]])
    inputs = {"logits": torch.zeros(1, 3, VOCAB), "tokens": tokens, "parents": parents}
    laws.check_refusal(fast_verify_tree, inputs, "choices", torch.tensor([[0, choice, 0]]))
