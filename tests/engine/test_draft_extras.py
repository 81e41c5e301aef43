"""`draft_head` and `draft_vocab` of from_pretrained: what is built, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kangaroo import KangarooForCausalLM
from kangaroo.config import ADAPTER_KINDS
from kangaroo.draft.head import bytes_per_step
from kangaroo.models.draft_vocab import save_draft_vocab
from kangaroo.models.fingerprint import tokenizer_sha256
from kangaroo_kernels import UnsupportedError
from tests.engines import FIXED
from tests.folders import VOCAB_SIZE

PROMPT = [5, 30, 6, 30, 7]
SOME = [1, *range(10, 200, 3)]
EXTRAS: list[dict[str, Any]] = [
    {"draft_head": "int8"},
    {"draft_vocab": SOME},
    {"draft_head": "int8", "draft_vocab": SOME},
]
CALLS: list[dict[str, Any]] = [
    {"draft": "chain", "confidence": 0.0},
    {"draft": "tree", "confidence": 0.0},
    {"do_sample": True, "seed": 3, "confidence": 0.0},
    {"do_sample": True, "seed": 3, "draft": "tree"},
    {"num_return_sequences": 2, "do_sample": True, "seed": 3, "top_k": 4},
]


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("extras", EXTRAS, ids=lambda extras: "-".join(extras))
def test_the_output_is_the_same(folder: Path, kind: str, extras: dict[str, Any]) -> None:
    """Token for token and bit for bit, however it is decoded."""
    plain = KangarooForCausalLM.from_pretrained(folder, kind)
    cheap = KangarooForCausalLM.from_pretrained(folder, kind, **extras)
    assert bytes_per_step(cheap.head) < bytes_per_step(plain.head)
    for call in CALLS:
        options = {"max_new_tokens": 16, "eos_token_id": None, "output_logits": True} | FIXED | call
        options["return_dict_in_generate"] = True
        expected: Any = plain.generate(PROMPT, **options)
        output: Any = cheap.generate(PROMPT, **options)
        assert output.sequences.equal(expected.sequences)
        assert torch.stack(output.logits).equal(torch.stack(expected.logits))
        assert output.speculation.num_drafted > 0


@pytest.mark.parametrize("call", [*CALLS[:1], {"draft": "tree", "draft_top_k": 1}, *CALLS[2:]])
def test_drafts_come_from_it(folder: Path, call: dict[str, Any]) -> None:
    """Where one token alone may be drafted, and it is never right, nothing is accepted."""
    options = {"max_new_tokens": 16, "eos_token_id": None, "return_dict_in_generate": True}
    options |= FIXED | call
    if call.get("draft") == "tree":
        options["draft_top_k"] = 1
    plain: Any = KangarooForCausalLM.from_pretrained(folder, "paper").generate(PROMPT, **options)
    never = min(set(range(VOCAB_SIZE)) - set(plain.sequences.flatten().tolist()))
    llm = KangarooForCausalLM.from_pretrained(folder, "paper", draft_vocab=[never])
    output: Any = llm.generate(PROMPT, **options)
    assert output.sequences.equal(plain.sequences)
    assert output.speculation.num_drafted > 0
    assert output.speculation.num_accepted == 0 < plain.speculation.num_accepted


def test_bytes_of_a_step(folder: Path) -> None:
    llms = [KangarooForCausalLM.from_pretrained(folder, "paper", **extras) for extras in EXTRAS]
    int8, some, both = (bytes_per_step(llm.head) for llm in llms)
    own = bytes_per_step(KangarooForCausalLM.from_pretrained(folder).head)
    assert own == VOCAB_SIZE * 32 * 4
    assert int8 == VOCAB_SIZE * (32 + 4)
    assert some == len(SOME) * (32 * 4 + 4)
    assert both == len(SOME) * (32 + 4 + 4)


def test_a_file_of_the_targets_own(folder: Path, tmp_path: Path) -> None:
    file, counts = tmp_path / "ids.json", torch.ones(VOCAB_SIZE)
    save_draft_vocab(file, SOME, counts, tokenizer_sha256(folder))
    llm = KangarooForCausalLM.from_pretrained(folder, "paper", draft_vocab=file)
    assert llm.head.token_ids is not None
    assert llm.head.token_ids.tolist() == SOME
    save_draft_vocab(file, SOME, counts, "another")
    with pytest.raises(ValueError, match=f"^{file}: tokenizer: expected .* got 'another'$"):
        KangarooForCausalLM.from_pretrained(folder, "paper", draft_vocab=file)


@pytest.mark.parametrize(
    ("adapter", "options", "message"),
    [
        ("paper", {"draft_head": "int4"}, "^draft_head: expected one of int8, float8, got 'int4'$"),
        ("paper", {"draft_vocab": [3, 2]}, "^draft_vocab: expected strictly increasing ids"),
        ("paper", {"draft_vocab": [VOCAB_SIZE]}, "^draft_vocab: expected ids in"),
        ("paper", {"draft_vocab": "absent.json"}, "^absent.json: cannot be read"),
        (None, {"draft_head": "int8"}, "^draft_head: has no effect without an adapter"),
        (None, {"draft_vocab": [3]}, "^draft_vocab: has no effect without an adapter"),
    ],
)
def test_what_cannot_be_meant(
    folder: Path, adapter: str | None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        KangarooForCausalLM.from_pretrained(folder, adapter, **options)


def test_float8_where_it_can_be_read(folder: Path) -> None:
    """Refused when the engine is built, not in the middle of a text."""
    llm = KangarooForCausalLM.from_pretrained(
        folder, "paper", backend="reference", draft_head="float8"
    )
    assert llm.head.weight.dtype == torch.float8_e4m3fn
    with pytest.raises(UnsupportedError, match="^draft_head: head: no native op reads .*float8"):
        KangarooForCausalLM.from_pretrained(folder, "paper", backend="native", draft_head="float8")
