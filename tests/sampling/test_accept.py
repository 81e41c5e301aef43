"""Corners of both rules in floating point, and greedy decoding as their limit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kangaroo.sampling.accept import Candidates, accept, certain, residual, walk, without
from kangaroo.sampling.source import CounterSource
from kangaroo_kernels.verify_tree import Verdict
from kangaroo_kernels.verify_tree.reference import verify_tree

VOCAB = 5


def verdict(
    tokens: list[int], parents: list[int], p: Tensor, q: Tensor | None, seed: int = 0
) -> Verdict:
    """One sequence; rows [N, V] by node."""
    nodes = Candidates(
        torch.tensor([tokens]), torch.tensor([parents]), torch.zeros(1).long(), torch.ones(1).long()
    )
    return accept(
        nodes,
        lambda _, at: p[at].clone(),
        None if q is None else lambda _, at: q[at].clone(),
        CounterSource(seed),
    )


def rows(*weights: list[float]) -> Tensor:
    return torch.tensor(weights, dtype=torch.float64)


def one_hot(tokens: list[int]) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(tokens), VOCAB).double()


def test_a_draft_that_is_the_target_is_kept() -> None:
    """Wherever p = q, whatever the numbers."""
    p = torch.rand(4, VOCAB, dtype=torch.float64).softmax(-1)
    for seed in range(200):
        got = verdict([0, 1, 2, 3], [-1, 0, 1, 2], p, p, seed)
        assert got.path.tolist() == [[0, 1, 2, 3]]
        assert got.path_len.tolist() == [4]


def test_a_token_the_target_never_says_is_rejected() -> None:
    p, q = rows([0, 0.5, 0.5, 0, 0], [1, 0, 0, 0, 0]), rows([0.9, 0.1, 0, 0, 0], [1, 0, 0, 0, 0])
    for seed in range(200):
        got = verdict([3, 0], [-1, 0], p, q, seed)
        assert got.path.tolist() == [[0, -1]]
        assert got.bonus.tolist() in ([1], [2])


def test_when_all_siblings_are_rejected_none_of_them_is_written() -> None:
    """Here p is nothing where q is something, so what is left is all of p."""
    p, q = rows([0, 0, 0, 0.3, 0.7]).repeat(4, 1), rows([0.5, 0.3, 0.2, 0, 0]).repeat(4, 1)
    bonus = [int(verdict([9, 2, 0, 1], [-1, 0, 0, 0], p, q, seed).bonus) for seed in range(300)]
    assert set(bonus) == {3, 4}
    assert 0.6 < bonus.count(4) / 300 < 0.8


def test_nothing_is_drawn_from_a_residual_that_rounding_emptied() -> None:
    """q a rounding error above p and nowhere below it: the token comes from p."""
    p = rows([0.1, 0.2, 0.7, 0, 0])
    assert torch.allclose(residual(p, p * (1 + 2**-52)), p / p.sum())
    both = residual(torch.cat([p, p]), torch.cat([p, rows([0.3, 0.2, 0.5, 0, 0])]))
    assert torch.allclose(both, torch.cat([p, rows([0, 0, 1, 0, 0])]))


def test_a_row_of_one_token_can_lose_it() -> None:
    q = without(rows([0, 1, 0, 0, 0]), torch.tensor([1]))
    assert q.tolist() == [[0.0] * VOCAB]


def test_a_chosen_token_is_one_of_which_the_drafter_is_certain() -> None:
    p = torch.rand(3, VOCAB, dtype=torch.float64).softmax(-1)
    for seed in range(100):
        tokens, parents = [0, 4, 2], [-1, 0, 0]
        chosen = verdict(tokens[:2], parents[:2], p, None, seed)
        drawn = verdict(tokens[:2], parents[:2], p, certain(p, torch.tensor([4, 4, 4])), seed)
        assert [part.tolist() for part in chosen] == [part.tolist() for part in drawn]
        bonus = verdict(tokens, parents, p, None, seed)
        assert bonus.path_len > 1 or bonus.bonus.item() not in (4, 2)


def test_logits_that_are_no_numbers_are_an_error() -> None:
    p = torch.full((2, VOCAB), float("nan"), dtype=torch.float64)
    with pytest.raises(ValueError, match="the logits are not finite"):
        verdict([0, 1], [-1, 0], p, rows([0.5, 0.5, 0, 0, 0]).repeat(2, 1))


@given(st.data())
def test_temperature_zero_is_verify_tree(data: st.DataObject) -> None:
    """For a batch of trees of any shape, chosen or drawn, siblings that are the same included."""
    batch, num_nodes = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 8))
    token = st.integers(0, VOCAB - 1)

    def matrix(elements: list[st.SearchStrategy[int]]) -> Tensor:
        return torch.tensor([[data.draw(e) for e in elements] for _ in range(batch)])

    tokens = matrix([token] * num_nodes)
    parents = matrix([st.just(-1), *(st.integers(0, node - 1) for node in range(1, num_nodes))])
    choices = matrix([token] * num_nodes)
    logits = torch.nn.functional.one_hot(choices, VOCAB).double()
    numbers = torch.arange(batch)
    candidates = Candidates(tokens, parents, numbers, numbers)

    def target(which: Tensor, at: Tensor) -> Tensor:
        return logits[which][range(len(at)), at]

    expected = [part.tolist() for part in verify_tree(logits, tokens, parents)]
    for got in (
        accept(candidates, target, None, CounterSource(0)),
        walk(candidates, target, CounterSource(0)),
    ):
        assert [part.tolist() for part in got] == expected


@pytest.mark.parametrize("coupled", [False, True])
def test_a_sequence_does_not_see_its_neighbours(coupled: bool) -> None:
    """The same verdicts alone and in a batch."""
    generator = torch.Generator().manual_seed(0)
    num, parents = 64, torch.tensor([[-1, 0, 0, 1, 2]]).repeat(64, 1)
    p, q = torch.rand(2, num, 5, VOCAB, generator=generator, dtype=torch.float64).softmax(-1)
    tokens = torch.stack([torch.randperm(VOCAB, generator=generator) for _ in range(num)])
    numbers = torch.arange(num)

    def run(some: Tensor) -> Verdict:
        candidates = Candidates(tokens[some], parents[some], numbers[some], 3 * numbers[some])
        rows, drawn = (lambda which, at, r=r[some]: r[which, at] for r in (p, q))
        if coupled:
            return walk(candidates, rows, CounterSource(5))
        return accept(candidates, rows, drawn, CounterSource(5))

    together = run(numbers)
    assert len(together.path_len.unique()) == 3
    for row in numbers:
        alone = run(row[None])
        assert [part[0].tolist() for part in alone] == [part[row].tolist() for part in together]
