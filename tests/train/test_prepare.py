"""Data is prepared whole or not at all; what is bad is told by line and never trained on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from kangaroo.train.documents import DataError, Document, read_documents
from kangaroo.train.prepare import (
    HELD_OUT,
    MANIFEST,
    REJECTS,
    TRAIN,
    prepare_data,
    training_documents,
)
from kangaroo.train.run import prepare
from kangaroo.train.staging import whole_folder
from kangaroo.train.windows import split_documents
from tests.train.tiny import CHAT_TEMPLATE, make_config, make_target, make_tokenizer, write_jsonl

STRICT = "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}"
GOOD = [
    {"text": "hop, hop"},
    {"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "yes"}]},
    {"input_ids": [1, 9, 8], "loss_mask": [0, 0, 1]},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target whose chat template wants the user to begin."""
    path = make_target(tmp_path_factory.mktemp("strict"))
    make_tokenizer(STRICT + CHAT_TEMPLATE).save_pretrained(path)
    return path


def turns(*roles: str, content: str = "hop") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role in roles]}


BAD: list[tuple[bytes | dict[str, Any], str]] = [
    (b'{"text": "a', "expected JSON"),
    (b"[" * 9999, "expected JSON"),
    (b'{"text": "\xff"}', "expected UTF-8, got byte 0xff"),
    (b'{"text": "\\ud800"}', "text: expected whole characters"),
    (b'["a"]', "expected an object, got list"),
    ({}, "expected a field"),
    ({"text": ""}, "text: expected at least one character"),
    ({"messages": []}, "messages: expected a list of at least one message"),
    (turns("user", "bard"), "messages: [1].role: expected one of"),
    (turns("user", "assistant", content="\udc00"), "messages: [0].content: expected whole"),
    (turns("system", "assistant"), "the chat template refuses it: user first"),
    (turns("assistant", "user"), "the chat template refuses it: user first"),
    (turns("user", "user"), "there is nothing to train on"),
    (turns("user", "assistant", content="hop " * 99), "expected at most 256 tokens"),
    ({"input_ids": [1, 263], "loss_mask": [0, 1]}, "expected tokens in [0, 263), got 263"),
    ({"input_ids": [1, 10**30], "loss_mask": [0, 1]}, "input_ids: expected a list of tokens"),
    ({"input_ids": [1, 9], "loss_mask": [0]}, "loss_mask: expected null, or a list of 2"),
    ({"input_ids": [1, 9], "loss_mask": [1, 0]}, "there is nothing to train on"),
    ({"input_ids": [1], "loss_mask": None}, "expected at least two tokens, got 1"),
]


def write_mixed(file: Path) -> Path:
    """Every bad line between good ones, bad ones in the odd lines."""
    bad = [b if isinstance(b, bytes) else json.dumps(b).encode() for b, _ in BAD]
    good = [json.dumps(GOOD[n % 3] | {"n": n}).encode() for n in range(len(bad))]
    file.write_bytes(b"".join(b + b"\n" + g + b"\n" for b, g in zip(bad, good, strict=True)))
    return file


def bits(documents: list[Document]) -> list[tuple[list[int], list[bool] | None]]:
    def of(answer: Tensor | None) -> list[bool] | None:
        return None if answer is None else answer.tolist()

    return [(d.ids.tolist(), of(d.answer)) for d in documents]


def test_bad_lines_are_told_by_line_and_never_trained_on(model: Path, tmp_path: Path) -> None:
    mixed, binary, out = write_mixed(tmp_path / "m.jsonl"), tmp_path / "b.txt", tmp_path / "out"
    binary.write_bytes(b"a\nb\n\xc3")
    manifest = prepare_data(model, [mixed, binary], out, 0.3, 24)
    rejects = [json.loads(line) for line in (out / REJECTS).read_text().splitlines()]
    assert manifest["num_rejected"] == len(rejects) == len(BAD) + 1
    for number, ((_, reason), reject) in enumerate(zip(BAD, rejects, strict=False)):
        assert (reject["file"], reject["line"]) == (str(mixed), 2 * number + 1)
        assert reason in reject["reason"]
    assert rejects[2]["content"] == '{"text": "\\xff"}'
    assert rejects[-1]["line"] == 3
    assert [(s["num_documents"], s["num_rejected"]) for s in manifest["sources"]] == [
        (len(BAD), len(BAD)),
        (0, 1),
    ]
    tokenizer = make_tokenizer(STRICT + CHAT_TEMPLATE)
    clean = read_documents(write_jsonl(tmp_path / "good.jsonl", GOOD), tokenizer)
    train, held_out = training_documents(out, model, tokenizer, 0.5)
    assert {str(d) for d in bits(train + held_out)} == {str(d) for d in bits(clean)}
    assert len(train) + len(held_out) == len(BAD)


# What is longer than the context is cut into windows.
@pytest.mark.parametrize(("line", "reason"), [bad for bad in BAD if "256 tokens" not in bad[1]])
def test_a_file_with_a_bad_line_is_not_trained_on(
    model: Path, tmp_path: Path, line: bytes | dict[str, Any], reason: str
) -> None:
    file = tmp_path / "a.jsonl"
    bad = line if isinstance(line, bytes) else json.dumps(line).encode()
    file.write_bytes(json.dumps(GOOD[0]).encode() + b"\n" + bad + b"\n")
    with pytest.raises(DataError) as error:
        read_documents(file, make_tokenizer(STRICT + CHAT_TEMPLATE))
    assert f"{file}:2: " in str(error.value)
    assert reason in str(error.value)


def test_training_takes_the_folder_as_it_takes_the_file(target: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, target)
    out, again = tmp_path / "out", tmp_path / "again"
    manifest = prepare_data(target, [config.data], out, 0.2, 24)
    prepare_data(target, [config.data], again, 0.2, 24)
    for name in (TRAIN, HELD_OUT, REJECTS, MANIFEST):
        assert (out / name).read_bytes() == (again / name).read_bytes()
    tokenizer = make_tokenizer()
    from_folder = training_documents(out, target, tokenizer, 0.9)
    split = split_documents(read_documents(config.data, tokenizer), 0.2)
    assert [bits(part) for part in from_folder] == [bits(part) for part in split]
    run = prepare(make_config(tmp_path, target, {"data": out}))
    assert len(run.windows) == manifest["files"][TRAIN]["num_windows"]
    assert run.windows.stream.equal(prepare(config).windows.stream)


def test_a_folder_of_another_tokenizer_or_with_other_bytes_is_refused(
    target: Path, model: Path, tmp_path: Path
) -> None:
    config, out = make_config(tmp_path, target), tmp_path / "out"
    prepare_data(target, [config.data], out, 0.2, 24)
    with pytest.raises(ValueError, match="chat_template: expected"):
        training_documents(out, model, make_tokenizer(CHAT_TEMPLATE), 0.2)
    other = shutil.copytree(target, tmp_path / "other")
    (other / "tokenizer.json").write_text((target / "tokenizer.json").read_text() + "\n")
    with pytest.raises(ValueError, match="tokenizer: expected"):
        training_documents(out, other, make_tokenizer(), 0.2)
    with (out / HELD_OUT).open("a") as file:
        file.write('{"input_ids": [1, 2], "loss_mask": null}\n')
    with pytest.raises(ValueError, match=r"held-out\.jsonl: not the file"):
        training_documents(out, target, make_tokenizer(), 0.2)


def test_a_token_behind_the_embedding_is_refused_by_line(target: Path, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "hop"}, {"text": "a [PAD]"}])
    with pytest.raises(DataError, match=r"a\.jsonl:2: expected tokens in \[0, 263\), got 263"):
        training_documents(file, target, tokenizer, 0.5)


def test_whole_or_not_at_all(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = make_config(tmp_path, target).data, tmp_path / "out"
    before = sorted(tmp_path.iterdir())

    def fail(_file: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("kangaroo.train.staging.flush", fail)
        with pytest.raises(OSError, match="disk full"):
            prepare_data(target, [data], out, 0.2, 24)
    assert sorted(tmp_path.iterdir()) == before
    useless = write_jsonl(tmp_path / "useless.jsonl", [{"text": ""}, "{"])
    with pytest.raises(DataError, match=r"got none; the first line rejected: .*useless\.jsonl:1"):
        prepare_data(target, [useless], out, 0.2, 24)
    assert not out.exists()
    out.mkdir()
    with pytest.raises(ValueError, match="out: .* exists"):
        prepare_data(target, [data], out, 0.2, 24)
    with pytest.raises(ValueError, match="out: no such folder"):
        prepare_data(target, [data], tmp_path / "none" / "out", 0.2, 24)


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="out: .* exists"), whole_folder(out):
        out.mkdir()
    assert list(tmp_path.iterdir()) == [out]
