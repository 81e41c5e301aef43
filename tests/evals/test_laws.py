"""The chi-square test: known values, cells that are too small, and outcomes that cannot be."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from kangaroo.evals.laws import chi_square, compared


@pytest.mark.parametrize(
    ("statistic", "cells", "p_value"),  # of printed tables
    [(3.841459, 2, 0.05), (6.634897, 2, 0.01), (18.307038, 11, 0.05), (29.588298, 11, 0.001)],
)
def test_tables(statistic: float, cells: int, p_value: float) -> None:
    """One cell lacks what another has too much: each adds half of the statistic."""
    observed = torch.full((cells,), 1e6, dtype=torch.float64)
    surplus = (1e6 * statistic / 2) ** 0.5
    observed[0], observed[1] = 1e6 + surplus, 1e6 - surplus
    found = chi_square(observed, torch.full((cells,), 1 / cells))
    assert found == (pytest.approx(p_value, rel=1e-4), cells)


def test_rare_outcomes_are_one_cell() -> None:
    """0.5, 1.5 and 4 of 100 are six together; two cells of 50 and 44 remain."""
    law = torch.tensor([0.5, 0.005, 0.44, 0.015, 0.04])
    assert chi_square(100 * law, law) == (pytest.approx(1.0), 3)
    observed = torch.tensor([50.0, 0, 44, 0, 6])  # as many rare ones as there should be
    assert chi_square(observed, law) == (pytest.approx(1.0), 3)
    assert chi_square(torch.tensor([50.0, 0, 25, 0, 25]), law)[0] < 1e-6


def test_too_few_draws_prove_nothing() -> None:
    law = torch.tensor([0.5, 0.5])
    assert chi_square(torch.tensor([9.0, 0.0]), law) == (1.0, 1)
    assert chi_square(torch.tensor([12.0, 0.0]), law)[1] == 2


def test_what_is_impossible_is_not_drawn() -> None:
    law = {(1,): 0.5, (2,): 0.5}
    assert compared(Counter({(1,): 50, (2,): 50}), law) == (pytest.approx(1.0), 2)
    assert compared(Counter({(1,): 50, (2,): 50, (3,): 1}), law)[0] == 0.0
