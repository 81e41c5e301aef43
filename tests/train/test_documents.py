"""Files become documents; what is wrong with one is named by file, line and field."""

from pathlib import Path
from typing import Any

import pytest

from kangaroo.train.documents import DataError, bos_of, read_documents
from tests.train.tiny import make_tokenizer, write_jsonl

TOKENIZER = make_tokenizer()


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("hello\n\nyes ünder", encoding="utf-8")
    (document,) = read_documents(path, TOKENIZER)
    assert document.answer is None
    bos, *text, eos = document.ids.tolist()
    assert (bos, eos) == (1, 2)
    assert TOKENIZER.decode(text) == "hello\n\nyes ünder"


def test_every_kind_of_line(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    shared = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    lines = [
        {"text": "hello"},
        "",
        {"messages": chat},
        {"conversations": shared, "id": 7},
        {"input_ids": [1, 9, 8], "loss_mask": [0, 0, 1]},
    ]
    text, one, other, encoded = read_documents(write_jsonl(tmp_path / "a.jsonl", lines), TOKENIZER)
    assert text.answer is None
    assert TOKENIZER.decode(text.ids) == "<s>hello</s>"
    assert one.ids.tolist() == other.ids.tolist()
    assert one.answer is not None
    assert other.answer is not None
    assert one.answer.tolist() == other.answer.tolist()
    assert encoded.ids.tolist() == [1, 9, 8]
    assert encoded.answer is not None
    assert encoded.answer.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"a\.jsonl:2: expected JSON"),
        ([1], r"a\.jsonl:2: expected an object, got list"),
        ({"txt": "a"}, r"a\.jsonl:2: expected a field \"text\".* got \['txt'\]"),
        ({"text": 3}, r"a\.jsonl:2: expected a field \"text\" \(a string\)"),
        ({"messages": []}, r"a\.jsonl:2: messages: expected a list of at least one"),
        ({"messages": [{"role": "user"}]}, r"a\.jsonl:2: messages: \[0\]\.content: .* got None"),
        ({"messages": ["hi"]}, r"a\.jsonl:2: messages: \[0\]\.role: .* got None"),
        (
            {"conversations": [{"from": "bard", "value": "a"}]},
            r"a\.jsonl:2: conversations: \[0\]\.role: .* got 'bard'",
        ),
        ({"input_ids": [1, 300], "loss_mask": [0, 1]}, r"a\.jsonl:2: .* tokens in \[0, 263\)"),
        ({"input_ids": [1, 3], "loss_mask": [1]}, r"a\.jsonl:2: loss_mask: .* list of 2"),
        ({"input_ids": [1, 3], "loss_mask": [0, 2]}, r"a\.jsonl:2: loss_mask: .* zeros and ones"),
        ({"input_ids": [1, 3]}, r"a\.jsonl:2: loss_mask: "),
    ],
)
def test_faults_are_named(tmp_path: Path, line: Any, message: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "fine"}, line])
    with pytest.raises(DataError, match=message):
        read_documents(path, TOKENIZER)


@pytest.mark.parametrize(
    ("name", "message"), [("a.csv", "expected a .jsonl"), ("a.jsonl", "at least one")]
)
def test_files_without_documents(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_text("\n")
    with pytest.raises(DataError, match=message):
        read_documents(tmp_path / name, TOKENIZER)


def test_the_first_token_is_the_tokenizer_s_own_choice() -> None:
    assert bos_of(TOKENIZER) == 1
    assert bos_of(make_tokenizer(adds_bos=False)) is None
