"""DraftTree: parents first, depths along the path."""

from __future__ import annotations

import torch

from kangaroo.draft.tree import DraftTree, places, tensors


def test_a_root_alone() -> None:
    tree = DraftTree.root(7)
    assert len(tree) == 1
    assert (tree.tokens, tree.parents, tree.depths) == ([7], [-1], [0])


def test_trees_do_not_share_nodes() -> None:
    first, second = DraftTree.root(1), DraftTree.root(2)
    first.add(5, parent=0)
    assert (second.tokens, second.parents, second.depths) == ([2], [-1], [0])


def test_a_chain() -> None:
    tree = DraftTree.root(7)
    assert [tree.add(token, parent=len(tree) - 1) for token in (3, 1, 4)] == [1, 2, 3]
    assert tree.tokens == [7, 3, 1, 4]
    assert tree.parents == [-1, 0, 1, 2]
    assert tree.depths == [0, 1, 2, 3]


def test_siblings_are_equally_deep() -> None:
    tree = DraftTree.root(7)
    a, b = tree.add(3, parent=0), tree.add(1, parent=0)
    c, d = tree.add(4, parent=a), tree.add(1, parent=b)
    tree.add(5, parent=c)
    assert tree.parents == [-1, 0, 0, a, b, c]
    assert tree.depths == [0, 1, 1, 2, 2, 3]
    assert d == 4


def test_tensors_have_the_shape_that_verification_wants() -> None:
    tree = DraftTree.root(7)
    tree.add(3, parent=0)
    tree.add(1, parent=0)
    tokens, parents = tensors([tree], torch.device("cpu"))
    assert tokens.dtype == parents.dtype == torch.int64
    assert tokens.tolist() == [[7, 3, 1]]
    assert parents.tolist() == [[-1, 0, 0]]


def test_ancestors_are_a_nodes_path() -> None:
    tree = DraftTree.root(7)
    a, b = tree.add(3, parent=0), tree.add(1, parent=0)
    c = tree.add(4, parent=b)
    assert tree.ancestors == [0b1, 0b11, 0b101, 0b1101]
    assert not tree.is_chain
    tree.add(5, parent=c)
    depths, masks = places([tree], 2, 5, torch.device("cpu"))
    assert (depths.dtype, masks.dtype) == (torch.int32, torch.int64)
    assert depths.tolist() == [[1, 2, 3]]
    assert masks.tolist() == [[0b101, 0b1101, 0b11101]]
    assert a == 1


def test_the_last_of_64_nodes_is_the_sign() -> None:
    tree = DraftTree.root(7)
    for node in range(1, 64):
        tree.add(node, parent=0)
    masks = places([tree], 62, 64, torch.device("cpu"))[1]
    assert masks.tolist() == [[1 | 1 << 62, 1 - (1 << 63)]]


def test_what_is_a_chain() -> None:
    tree = DraftTree.root(7)
    assert tree.is_chain
    tree.add(1, parent=0)
    tree.add(2, parent=1)
    assert tree.is_chain
    tree.add(3, parent=1)
    assert not tree.is_chain
    tree.add(3, parent=2)
    assert not tree.is_chain
