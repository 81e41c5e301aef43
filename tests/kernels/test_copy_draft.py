"""copy_draft: every implementation, against a plain search and what verification must see."""

from __future__ import annotations

import pytest
import torch

from kangaroo_kernels import testing
from kangaroo_kernels.copy_draft import CopyDraft
from tests.kernels import laws
from tests.kernels.copies import Texts

LOOP = [1, 2, 3, 4, 5, 1, 2, 3, 9, 1, 2]  # behind 1, 2 there stood 3 twice, then 4 and then 9


def drafts(texts: Texts, b: int = 0) -> list[int]:
    nodes = texts.trees.nodes
    return nodes.tokens[b, 1 : int(nodes.num_nodes[b])].tolist()


def test_the_latest_place_is_followed(copy_draft: CopyDraft) -> None:
    texts = Texts.of([LOOP], 6)
    texts.look(copy_draft, 2, 4)
    assert drafts(texts) == [3, 9, 1, 2]
    nodes, parents, ancestors = texts.trees
    assert nodes.positions[0, :5].tolist() == [10, 11, 12, 13, 14]
    assert parents[0, :5].tolist() == [-1, 0, 1, 2, 3]
    assert ancestors[0, :5].tolist() == [1, 3, 7, 15, 31]
    assert (nodes.num_nodes.item(), nodes.stopped.item(), texts.found.item()) == (5, 1, 1)


def test_a_copy_goes_on_with_itself(copy_draft: CopyDraft) -> None:
    texts = Texts.of([[5, 7, 8, 5, 7]], 64)
    texts.look(copy_draft, 2, 63)
    assert drafts(texts) == [8, 5, 7] * 21
    assert texts.trees.ancestors[0, -2:].tolist() == [2**63 - 1, -1]


@pytest.mark.parametrize("size", [3, 10, 11, 18])
def test_what_has_not_stood_there_is_not_found(copy_draft: CopyDraft, size: int) -> None:
    """Nor does it lie behind the root, or in front of the text."""
    texts = Texts.of([LOOP], 6)
    texts.text[0, 11:] = texts.text[0, 8:].clone()[: texts.text.shape[1] - 11]
    before = texts.copy()
    texts.look(copy_draft, size, 4)
    assert texts.found.item() == 0
    for ours, theirs in zip(texts.flat[4:-1], before.flat[4:-1], strict=True):
        testing.assert_same_bits(ours, theirs)


def test_paths_join_the_text(copy_draft: CopyDraft) -> None:
    """Also where a sequence brings its first token, and where it has stopped."""
    texts = Texts.of([LOOP, LOOP, [4, 4], LOOP], 9, [4, 1, 2, 3])
    texts.trees.nodes.stopped[3] = 1
    before = texts.copy()
    texts.look(copy_draft, 1, 3)
    for b, tokens in enumerate([LOOP, LOOP, [4, 4]]):
        assert texts.text[b, : len(tokens)].tolist() == tokens
        testing.assert_same_bits(texts.text[b, len(tokens) :], before.text[b, len(tokens) :])
    assert [drafts(texts, b) for b in range(3)] == [[3, 9, 1], [3, 9, 1], [4, 4, 4]]
    assert texts.found.tolist() == [1, 1, 1, 0]
    for ours, theirs in zip(texts.flat[:-1], before.flat[:-1], strict=True):
        testing.assert_same_bits(ours[3], theirs[3])


@pytest.mark.parametrize("place", [3, 2047, 2048, 2049, 4500])
def test_long_texts(copy_draft: CopyDraft, place: int) -> None:
    """Over the edges of what is looked at at once."""
    tokens = list(range(10, 5010))
    tokens[place - 2 : place] = tokens[-2:]
    texts = Texts.of([tokens], 4)
    texts.look(copy_draft, 2, 3)
    assert drafts(texts) == tokens[place : place + 3]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("size", 0),
        ("size", 19),
        ("count", 0),
        ("count", 6),
        ("text", torch.zeros(1, 18)),
        ("text", torch.zeros(18, 1, dtype=torch.int32).expand(18, 2).t()),
        ("found", torch.zeros(2, dtype=torch.int32)),
        ("cache_seqlens", torch.zeros(1)),
    ],
)
def test_bad_inputs(fast_copy_draft: CopyDraft, name: str, bad: object) -> None:
    texts = Texts.of([LOOP], 6)
    if isinstance(bad, torch.Tensor):
        bad = bad.to(texts.text.device)
    inputs = vars(texts) | {"size": 2, "count": 4}
    laws.check_refusal(fast_copy_draft, inputs, name, bad)
