"""Prompts are read strictly, and the held-out ones are fixed and never seen in training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kangaroo.evals.prompts import held_out_prompts, read_prompts
from kangaroo.zoo import corpus
from tests.folders import TEXTS, VOCAB_SIZE


def test_the_prompt_of_every_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a\\nb"}\n\n{"prompt": "é\u2028", "id": 3}\r\n', encoding="utf-8")
    assert [prompt.text for prompt in read_prompts(file)] == ["a\nb", "é\u2028"]


def test_conversations(tmp_path: Path) -> None:
    """In the words of training data; tokens are those of the model's template, up to the answer."""
    file = tmp_path / "prompts.jsonl"
    turns = [{"from": "system", "value": "be brief"}, {"from": "human", "value": "hello"}]
    file.write_text(json.dumps({"messages": turns}), encoding="utf-8")
    (prompt,) = read_prompts(file)
    assert prompt.text == "hello"
    tokenizer = corpus.train_tokenizer(TEXTS, VOCAB_SIZE)
    with pytest.raises(ValueError, match="^chat: expected a model with a chat template"):
        prompt.ids(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    assert tokenizer.decode(prompt.ids(tokenizer)) == "<system>be brief<user>hello"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "a"}\nodd\n', ":2: not valid JSON"),
        (b'{"text": "a"}', ":1: expected an object with one of"),
        (b'{"prompt": ""}', ":1: expected an object with one of"),
        (
            b'{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}',
            ":1: expected an object with one of",
        ),
        (b'{"messages": []}', ":1: messages: expected a list of at least one message"),
        (b'{"messages": [{"role": "user"}]}', r":1: messages: \[0\].content: expected a string"),
        (b"[]", ":1: expected an object with one of"),
        (b"\n \n", ": no prompts; expected one object a line"),
        (b'{"prompt": "\xff"}', ": not UTF-8"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{file}{message}"):
        read_prompts(file)
    with pytest.raises(ValueError, match="absent.jsonl: cannot be read: No such file"):
        read_prompts(tmp_path / "absent.jsonl")


def test_held_out_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """From held-out files alone, behind a line break past a quarter, evenly along the paths."""
    text = "".join(f"line {n}\n" for n in range(40))
    files = {f"{n:03}.py": text for n in range(200)} | {"short.py": "a\n" * 3}
    monkeypatch.setattr(corpus, "stdlib_files", lambda: files)
    monkeypatch.setattr(corpus, "is_held_out", lambda name: name[0] in "0s")
    tokenizer = corpus.train_tokenizer(TEXTS, VOCAB_SIZE)

    prompts = held_out_prompts(tokenizer, 4, 12)
    assert list(prompts) == ["000.py", "025.py", "050.py", "075.py"]
    for ids in prompts.values():
        assert (len(ids), ids[0]) == (12, tokenizer.bos_token_id)
        assert tokenizer.decode(ids[1:]).startswith("line 11\n")
    with pytest.raises(ValueError, match="^num_prompts: expected at most 100, got 101$"):
        held_out_prompts(tokenizer, 101, 12)
