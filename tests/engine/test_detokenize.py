"""Text comes in whole characters, and all of it comes."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from kangaroo.engine.detokenize import UNFINISHED, Detokenizer, text_of
from kangaroo.engine.loading import TINY_PY, load_tokenizer, target_path
from kangaroo.zoo import corpus
from tests.folders import TEXTS, VOCAB_SIZE

STRANGE = "naïve 日本語 🦘🇦🇺 e\u0301 \x00\ttab\r\n" + UNFINISHED + " end"


BROKEN_UP = "héllo 🦘 日本 naïve e\u0301 🇦🇺🇦🇺 日本語日本語日本語 🦘🦘🦘"


def byte_fallback() -> PreTrainedTokenizerFast:
    """As Llama 2's: spaces are part of tokens, one in front is dropped, and where the bytes of a
    run of characters do not end with a whole one, nothing of the run can be read.
    """
    known = [f"<0x{byte:02X}>" for byte in range(256)]
    known += sorted(set("hello\u2581naive\u0301")) + ["\u2581n", "lo"]
    vocab = {token: number for number, token in enumerate(["<unk>", *known])}
    merges = [("\u2581", "n"), ("l", "o")]
    bpe = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>"))
    bpe.normalizer = normalizers.Replace(" ", "\u2581")
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False)


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


@pytest.mark.parametrize("kind", ["bytes", "tiny-py", "fallback"])
def test_prompts_cut_at_every_token(tokenizer: PreTrainedTokenizerFast, kind: str) -> None:
    """Text begins with the character that new tokens complete, and pieces are whole characters."""
    kinds = {"bytes": tokenizer, "tiny-py": load_tokenizer(target_path(TINY_PY))}
    each = (kinds | {"fallback": byte_fallback()})[kind]
    ids = each(BROKEN_UP, add_special_tokens=False)["input_ids"]
    size = num_bytes if kind == "fallback" else len  # elsewhere a character for every byte
    sizes = [size(name) for name in each.convert_ids_to_tokens(ids)]
    text = BROKEN_UP.encode()
    assert sum(sizes) == len(text)
    for cut in range(len(ids) + 1):
        expected = BROKEN_UP.removeprefix(text[: sum(sizes[:cut])].decode(errors="ignore"))
        pieces = Detokenizer(each, ids[:cut])
        written = [pieces.add(token) for token in ids[cut:]]
        assert UNFINISHED not in "".join(written)
        assert pieces.end() == ""
        assert "".join(written) == text_of(each, ids[:cut], ids[cut:]) == expected


def num_bytes(name: str) -> int:
    """Of a token that is a byte, or text."""
    return 1 if name.startswith("<0x") else len(name.replace("\u2581", " ").encode())


@pytest.mark.parametrize("end", [UNFINISHED, UNFINISHED * 3])
def test_the_end_of_a_prompt_is_not_repeated(tokenizer: PreTrainedTokenizerFast, end: str) -> None:
    """Text that looks unfinished, and bytes that no character follows."""
    for each in (tokenizer, byte_fallback()):
        prompt = each("a" + end, add_special_tokens=False)["input_ids"]
        new = each("n é", add_special_tokens=False)["input_ids"]
        assert text_of(each, prompt, new) == "n é"
        half = each("日", add_special_tokens=False)["input_ids"][:-1]
        assert text_of(each, prompt + half, new) == "n é"
        rest = each("日n", add_special_tokens=False)["input_ids"][len(half) :]
        assert text_of(each, prompt + half, rest) == "日n"
