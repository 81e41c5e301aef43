"""Ten ways to decode: transformers' tokens (L3), and bit for bit the rows of depth 0 (L1).

Every family, and what changes tokens: penalties, forbidden words, ends, stop strings, biases. The
deep run (`-m fuzz`) decodes 40 prompts of ten lengths by 256 tokens in each way.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.engines import make_prompt
from tests.factories import FAMILIES
from tests.lossless.ways import MAX_PROMPT_LEN, WAYS, Engine, decode_all

LENGTHS = (1, 2, 7, 16, 33, 47, 63, 64, 65, MAX_PROMPT_LEN)  # a chunk of the caches is 64
OF_EACH_LENGTH = 4
ONE_OF_EACH_KIND = ("llama-gqa-llama3", "mistral", "qwen2", "qwen3")


def test_there_are_ten() -> None:
    """And one that draws back where drafts do not pay."""
    assert len([way for way in WAYS if not way.startswith("adaptive")]) == 10
    assert len(LENGTHS) * OF_EACH_LENGTH == 40


@pytest.mark.parametrize("family", ONE_OF_EACH_KIND)
def test_a_few_tokens(family: str, tmp_path: Path) -> None:
    """A prompt shorter than a chunk of the caches and one that grows over its end."""
    number = ONE_OF_EACH_KIND.index(family)
    engine = Engine(tmp_path, family, seed=number, num_tokens=24)
    counts: Counter[tuple[str, str]] = Counter()
    for first, length in ((number, 3), (number + 2, 55)):
        counts += decode_all(engine, [make_prompt(engine.model, length, number)], first)
    assert all(counts[way, "drafted"] for way in WAYS)
    assert sum(counts[way, "accepted"] for way in WAYS)


@pytest.mark.fuzz
@pytest.mark.parametrize("family", FAMILIES)
def test_forty_prompts(family: str, tmp_path: Path) -> None:
    """In every way some drafts were right and some were not."""
    engine = Engine(tmp_path, family, seed=list(FAMILIES).index(family), num_tokens=256)
    counts: Counter[tuple[str, str]] = Counter()
    for first, length in enumerate(LENGTHS):
        seeds = range(OF_EACH_LENGTH * first, OF_EACH_LENGTH * (first + 1))
        prompts = [make_prompt(engine.model, length, seed) for seed in seeds]
        counts += decode_all(engine, prompts, first)
    for way in WAYS:
        assert 0 < counts[way, "accepted"] < counts[way, "drafted"], way
