"""commit_path: every implementation, against what a round must leave to the next."""

from __future__ import annotations

import copy

import pytest
import torch

from kangaroo_kernels import testing
from kangaroo_kernels.commit_path import CommitPath
from tests.kernels import laws
from tests.kernels.rounds import Ending

ROOTS, PATHS = [0, 7, 130], [[0], [0, 1, 2, 3, 4, 5], [0, 2, 5]]


@pytest.mark.parametrize("lag", [0, 1])
def test_what_the_next_round_begins_with(commit_path: CommitPath, lag: int) -> None:
    ending = Ending.of(ROOTS, PATHS)
    before = copy.deepcopy(ending)
    commit_path(*ending.args, lag=lag, limit=10**6)  # type: ignore[arg-type]
    for b, path in enumerate(PATHS):
        root = ROOTS[b] + len(path)
        for where, start in zip(ending.places, (root, root - lag), strict=True):
            assert where.cache_seqlens[b] == start
            assert where.positions[b].tolist() == list(range(start, start + 700))
        assert ending.chain.tokens[b, 0] == before.verdict.bonus[b]
        assert ending.chain.positions[b, 0] == root
        expected = before.exit_states[b].clone()
        expected[0] = before.exit_states[b, 1 + path[-1]]
        testing.assert_same_bits(ending.exit_states[b], expected)
    for ours, theirs in zip(ending.chain, before.chain, strict=True):  # it is still to be published
        assert torch.equal(ours[:, 1:], theirs[:, 1:]) if ours.ndim == 2 else ours.equal(theirs)


def test_a_sequence_that_is_done_stays_as_it_was(commit_path: CommitPath) -> None:
    ending = Ending.of(ROOTS, PATHS)
    ending.done[1] = 1
    before = copy.deepcopy(ending)
    commit_path(*ending.args, lag=1, limit=10**6)  # type: ignore[arg-type]
    for ours, theirs in zip(ending.flat, before.flat, strict=True):
        testing.assert_same_bits(ours[1], theirs[1])
    assert ending.places[0].cache_seqlens.tolist() == [1, 7, 133]


def test_lengths_stay_inside_the_cache_and_tokens_inside_the_vocabulary(
    commit_path: CommitPath,
) -> None:
    """Where nothing was chosen the error is on its way to the host."""
    ending = Ending.of(ROOTS, PATHS)
    ending.verdict.bonus[0] = -1
    commit_path(*ending.args, lag=1, limit=131)  # type: ignore[arg-type]
    assert ending.places[0].cache_seqlens.tolist() == [1, 13, 131]
    assert ending.places[1].cache_seqlens.tolist() == [0, 12, 130]
    assert ending.chain.tokens[0, 0] == 0


def test_wide_states(commit_path: CommitPath) -> None:
    ending = Ending.of([3], [[0, 1]], width=1100)
    leaf = ending.exit_states[0, 2].clone()
    commit_path(*ending.args, lag=0, limit=10**6)  # type: ignore[arg-type]
    testing.assert_same_bits(ending.exit_states[0, 0], leaf)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("lag", 2),
        ("done", torch.zeros(3)),
        ("exit_states", torch.randn(3, 6, 5)),
        ("exit_states", torch.randn(3, 5, 9).transpose(1, 2)),
    ],
)
def test_bad_inputs(fast_commit_path: CommitPath, name: str, bad: torch.Tensor) -> None:
    ending = Ending.of(ROOTS, PATHS)
    names = ("verdict", "chain", "exit_states", "places", "done")
    inputs = dict(zip(names, ending.args, strict=True)) | {"lag": 0, "limit": 10**6}
    if isinstance(bad, torch.Tensor):
        bad = bad.to(ending.exit_states.device)
    laws.check_refusal(fast_commit_path, inputs, name, bad)
