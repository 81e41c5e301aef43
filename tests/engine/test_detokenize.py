"""Text comes in whole characters, and all of it comes."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from kangaroo.engine.detokenize import UNFINISHED, Detokenizer, text_of
from kangaroo.zoo import corpus
from tests.folders import TEXTS, VOCAB_SIZE

STRANGE = "naïve 日本語 🦘🇦🇺 e\u0301 \x00\ttab\r\n" + UNFINISHED + " end"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Nearly every character beyond ASCII is several tokens, a byte each."""
    return corpus.train_tokenizer(TEXTS, VOCAB_SIZE)


@pytest.mark.parametrize("text", [*TEXTS, STRANGE, "", "🦘" * 20])
def test_pieces_make_the_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    prompt, ids = tokenizer("prompt é")["input_ids"], tokenizer(text)["input_ids"][1:]
    pieces = Detokenizer(tokenizer, prompt)
    written = [pieces.add(token) for token in ids] + [pieces.end()]
    assert "".join(written) == text_of(tokenizer, prompt, ids) == text


@pytest.mark.parametrize("text", ["naïve 日本語 🦘🇦🇺", "🦘" * 20])
def test_no_piece_holds_half_a_character(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    pieces = Detokenizer(tokenizer, [])
    for token in tokenizer(text)["input_ids"][1:]:
        assert UNFINISHED not in pieces.add(token)
    assert pieces.end() == ""


def test_an_unfinished_end_is_written_as_it_is(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("a🦘")["input_ids"][1:-1]
    pieces = Detokenizer(tokenizer, [])
    assert [pieces.add(token) for token in ids] == ["a", "", "", ""]
    assert set(pieces.end()) == {UNFINISHED}
    assert pieces.end() == ""


def test_special_tokens_have_no_text(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [*tokenizer("ab")["input_ids"], tokenizer.eos_token_id]
    assert text_of(tokenizer, [tokenizer.bos_token_id], ids) == "ab"
