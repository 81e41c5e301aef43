"""Every kind of mistake in the catalogue has its tests, or a reason why it cannot be made here."""

from __future__ import annotations

import re

import pytest

from tests.catalogue import CATALOGUE
from tests.source_tree import ROOT, TREES, functions

NUM_CLASSES = 42


def test_the_table_is_whole() -> None:
    """Each number once, each name once; no reason beside a test, nothing without either."""
    assert list(CATALOGUE) == list(range(1, NUM_CLASSES + 1))
    names = [entry.name for entry in CATALOGUE.values()]
    assert len(set(names)) == NUM_CLASSES
    for number, entry in CATALOGUE.items():
        assert bool(entry.absent) != bool(entry.tests), number
        assert len(set(entry.tests)) == len(entry.tests), number


@pytest.mark.parametrize("number", CATALOGUE)
def test_the_tests_exist(number: int) -> None:
    for node in CATALOGUE[number].tests:
        match = re.fullmatch(r"([\w/]+\.py)::(test_\w+)(?:\[(.+)\])?", node)
        assert match, node
        file, name, case = match.groups()
        path = ROOT / "tests" / file
        assert path in TREES, f"{file}: no such file"
        assert name in {function.name for function in functions(TREES[path])}, node
        assert case is None or f'("{case}", ' in path.read_text(), f"{node}: no such case"
