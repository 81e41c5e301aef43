"""Where a text repeats itself, and who drafts where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

from kangaroo import KangarooForCausalLM
from kangaroo.config import DraftConfig
from kangaroo.costs import CPU_ROW_COST, RoundCosts
from kangaroo.draft.copying import CopyingDrafter, Repeats
from kangaroo.draft.kangaroo import KangarooDrafter
from tests.engines import make_adapter, make_eagle
from tests.folders import make_folder


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ([1, 2, 3, 9, 1, 2], 2, [3, 9, 1, 2, 3]),  # and on into the copy
        ([1, 2, 3, 1, 2, 4, 1, 2], 2, [4, 1, 2, 4, 1]),  # the latest
        ([5, 5], 1, [5, 5, 5, 5, 5]),
        ([5, 5], 2, []),
        ([1, 2], 2, []),
        ([1], 3, []),
        ([1, 2, 3, 2], 1, [3, 2, 3, 2, 3]),
        ([1, 2, 3, 2], 2, []),
    ],
)
def test_continuations_by_hand(text: list[int], size: int, expected: list[int]) -> None:
    assert Repeats(size).continuation(text, 5) == expected
    assert Repeats(size).continuation(text, 0) == []


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(1, 4), st.data())
def test_any_text(text: list[int], size: int, data: st.DataObject) -> None:
    """However it grows, against a search of all that stands there."""
    repeats, length = Repeats(size), 0
    while length < len(text):
        length = data.draw(st.integers(length + 1, len(text)))
        tokens, count = text[:length], data.draw(st.integers(0, 9))
        last, longer = tokens[-size:], list(tokens)
        found = [end for end in range(size, length) if tokens[end - size : end] == last]
        for n in range(count if found else 0):
            longer.append(longer[found[-1] + n])
        assert repeats.continuation(tokens, count) == longer[length:]


def test_costs(tmp_path: Path) -> None:
    """The adapter's where there is one, which may be measured; without one only rows cost."""
    model = KangarooForCausalLM.from_pretrained(make_folder(tmp_path)).model
    config = DraftConfig(1, adaptive=True, lookup=2)
    alone = CopyingDrafter(KangarooDrafter(model, None, config))
    assert alone.costs() == RoundCosts(0.0, CPU_ROW_COST)
    own = KangarooDrafter(model, make_adapter(model, "paper", 1), config)
    assert CopyingDrafter(own).costs() == own.costs() != alone.costs()
    measured = DraftConfig(1, adaptive=True, lookup=2, costs=(0.5, 0.1))
    drafter = CopyingDrafter(KangarooDrafter(model, None, measured))
    assert drafter.costs() == RoundCosts(0.5, 0.1)


def test_copies_need_no_adapter(tmp_path: Path) -> None:
    """A target that says the same token for ever is followed; whoever else drafts is refused."""
    llm = KangarooForCausalLM.from_pretrained(make_folder(tmp_path))
    forever: Any = {"sequence_bias": {(7,): 1e4}, "max_new_tokens": 60}
    forever |= {"return_dict_in_generate": True, "eos_token_id": None}
    plain: Any = llm.generate([5, 6], draft="off", **forever)
    copied: Any = llm.generate([5, 6], lookup=2, **forever)
    assert copied.sequences.tolist() == plain.sequences.tolist() == [[5, 6, *[7] * 60]]
    # Three tokens one by one, then 16 a round; the last three, and one more than is copied.
    assert copied.speculation.num_rounds == 3 + 4
    assert copied.speculation.accepted_lens[15] == 3
    config = GenerationConfig(prompt_lookup_num_tokens=15)
    for call in ({"generation_config": config}, {"prompt_lookup_num_tokens": 15}):
        again: Any = llm.generate([5, 6], **call, **forever)
        assert again.sequences.tolist() == plain.sequences.tolist()
        assert again.speculation.accepted_lens == copied.speculation.accepted_lens
    eagle = KangarooForCausalLM(llm.model, make_eagle(llm.model), tmp_path, llm.generation_config)
    with pytest.raises(ValueError, match="^lookup: expected Kangaroo's adapter .*, got 'eagle'$"):
        eagle.generate([5, 6], lookup=2)
