"""Where rounding is at its worst, and where backends could differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kangaroo import KangarooForCausalLM
from kangaroo.sampling.accept import residual
from tests.engines import FIXED
from tests.folders import make_folder
from tests.sampling.test_accept import verdict
from tests.sampling.test_source import Fixed, place

VOCAB_SIZE = 128_256
PROMPT = [5, 30, 6, 30, 7]
DRAFTS: list[dict[str, Any]] = [
    {"max_depth": 0},
    FIXED | {"max_depth": 4},
    FIXED | {"draft": "tree", "draft_top_k": 3, "max_depth": 3},
]


def test_a_large_vocabulary() -> None:
    """Rows of float32 sum to 1 but for their rounding; a token of no weight is never drawn, and
    what is left of a row is a row.
    """
    generator = torch.Generator().manual_seed(0)
    logits = 8 * torch.randn(3, VOCAB_SIZE, generator=generator)
    logits[:, -1000:] = logits[:, :1000] = -torch.inf
    rows = logits.softmax(-1).double()
    for number in (0.0, 0.5, 1 - 2**-53):
        tokens = Fixed(number).draw(rows, place(torch.arange(3)))
        assert (rows.gather(1, tokens[:, None]) > 0).all()
    left = residual(rows[:2], rows[1:])
    assert (left >= 0).all()
    assert torch.allclose(left.sum(-1), torch.ones(2).double(), rtol=VOCAB_SIZE * 2**-53)
    assert not left[rows[:2] <= rows[1:]].any()
    for seed in range(20):
        drawn = [int(row.multinomial(1, generator=generator)) for row in rows]
        got = verdict([0, *drawn], [-1, 0, 1, 2], rows[[0, 1, 2, 0]], rows[[0, 1, 2, 0]], seed)
        assert got.path_len.item() == 4
        assert rows[0, got.bonus].item() > 0


@pytest.mark.parametrize("draft", DRAFTS, ids=str)
def test_every_backend_draws_the_same_tokens(tmp_path: Path, draft: dict[str, Any]) -> None:
    """No backend is greedy where another draws: a seed says the same to all of them."""
    folder = make_folder(tmp_path)
    options = {"max_new_tokens": 12, "eos_token_id": None} | draft
    drawn, greedy = [], []
    for backend in ("reference", "native"):
        llm = KangarooForCausalLM.from_pretrained(folder, "deep_prefix", backend=backend)
        drawn.append(
            [
                torch.as_tensor(llm.generate(PROMPT, do_sample=True, seed=seed, **options)).tolist()
                for seed in range(6)
            ]
        )
        greedy.append(torch.as_tensor(llm.generate(PROMPT, **options)).tolist())
    assert drawn[0] == drawn[1]
    assert greedy[0] == greedy[1]
    assert greedy[0] not in drawn[0]
