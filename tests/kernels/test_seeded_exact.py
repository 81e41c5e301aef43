"""Seeded small cases of the ops that decide and move: bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch

from kangaroo_kernels import testing
from kangaroo_kernels.copy_draft import reference
from kangaroo_kernels.testing import random_parents
from tests.kernels import naive
from tests.kernels.conftest import NUM_CASES, NUM_FUZZ_CASES, seeded
from tests.kernels.copies import Texts


def verify_tree(draw: random.Random, dtype: torch.dtype, op: Callable[..., Any]) -> None:
    """Few levels, so that logits tie; few tokens, so that drafts are accepted."""
    batch, num_nodes = draw.choice([1, 3]), draw.choice([1, 2, 5, 16, 64])
    vocab = draw.choice([1, 3, 37, 5000])
    logits = torch.randint(3, (batch, num_nodes, vocab)).to(dtype)
    choices = [[row.index(max(row)) for row in nodes] for nodes in logits.tolist()]
    tokens, parents = torch.randint(vocab, (batch, num_nodes)), random_parents(batch, num_nodes)
    for b, i in product(range(batch), range(1, num_nodes)):
        if draw.random() < 0.7:
            tokens[b, i] = choices[b][int(parents[b, i])]
    verdict = op(logits, tokens, parents)
    for b in range(batch):
        path = naive.accepted_path(choices[b], tokens[b].tolist(), parents[b].tolist())
        padded = path + [-1] * (num_nodes - len(path))
        assert verdict.path[b].tolist() == padded
        assert (verdict.path_len[b], verdict.bonus[b]) == (len(path), choices[b][path[-1]])


def compact_kv(draw: random.Random, dtype: torch.dtype, op: Callable[..., Any]) -> None:
    """Caches up to their last slot; what is no row of a path stays as it was."""
    batch, num_nodes = draw.choice([1, 3]), draw.choice([1, 2, 5, 16, 64])
    committed = [draw.choice([0, 1, 70]) for _ in range(batch)]
    num_slots = max(committed) + num_nodes
    shapes = [(2, 2, 16), (1, 1, 40), (3, 1, 1), (1, 2, 130), (2, 1, 5)]
    caches = [
        torch.randn(a, batch, h, num_slots, w).to(dtype) for a, h, w in shapes[: draw.randint(1, 5)]
    ]
    paths = [
        [0, *(node for node in range(1, num_nodes) if draw.random() < 0.5)] for _ in range(batch)
    ]
    expected = [cache.clone() for cache in caches]
    for b, (cache, before) in product(range(batch), zip(expected, caches, strict=True)):
        for j, node in enumerate(paths[b]):
            cache[:, b, :, committed[b] + j] = before[:, b, :, committed[b] + node]
    padded = torch.tensor([path + [2**40] * (num_nodes - len(path)) for path in paths])
    lengths = (torch.tensor(x, dtype=torch.int32) for x in ([len(p) for p in paths], committed))
    op(caches, padded, *lengths)
    for cache, right in zip(caches, expected, strict=True):
        testing.assert_same_bits(cache, right)


def copy_draft(draw: random.Random, dtype: torch.dtype, op: Callable[..., Any]) -> None:
    """Few different tokens, so that texts repeat themselves."""
    num_nodes, size = draw.choice([2, 5, 16, 64]), draw.choice([1, 2, 3, 5])
    alphabet, count = draw.choice([1, 2, 6]), draw.randint(1, num_nodes - 1)
    lengths = [draw.choice([1, 2, 9, 70, 2500]) for _ in range(draw.choice([1, 3]))]
    path_lens = [draw.randint(1, min(length, 1 + num_nodes // 2)) for length in lengths]
    written = [[draw.randrange(alphabet) for _ in range(length)] for length in lengths]
    texts = Texts.of(written, num_nodes, path_lens)
    size = min(size, texts.text.shape[1])
    theirs = texts.copy()
    texts.look(op, size, count)
    theirs.look(reference.copy_draft, size, count)
    for b, tokens in enumerate(written):
        assert texts.text[b, : len(tokens)].tolist() == tokens
    for mine, right in zip(texts.flat, theirs.flat, strict=True):
        testing.assert_same_bits(mine, right)


CASES = {make.__name__: make for make in (verify_tree, compact_kv, copy_draft)}
PARAMETERS = seeded(CASES)


def check(op: str, implementation: Callable[..., Any], dtype: torch.dtype, seeds: range) -> None:
    for seed in seeds:
        draw = random.Random(f"{op}/{dtype}/{seed}")
        torch.manual_seed(draw.getrandbits(60))
        CASES[op](draw, dtype, implementation)


@pytest.mark.parametrize(("op", "implementation", "dtype"), PARAMETERS)
def test_cases(op: str, implementation: Callable[..., Any], dtype: torch.dtype) -> None:
    check(op, implementation, dtype, range(NUM_CASES))


@pytest.mark.fuzz
@pytest.mark.parametrize(("op", "implementation", "dtype"), PARAMETERS)
def test_many_cases(op: str, implementation: Callable[..., Any], dtype: torch.dtype) -> None:
    check(op, implementation, dtype, range(NUM_CASES, NUM_CASES + NUM_FUZZ_CASES))
