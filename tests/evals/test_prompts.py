"""Prompts are read strictly, and the held-out ones are fixed and never seen in training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kangaroo import KangarooForCausalLM
from kangaroo.evals.prompts import BUILT_IN, Prompt, encoded, held_out_prompts, read_prompts
from kangaroo.zoo import corpus
from kangaroo_kernels import UnsupportedError
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
    turns += [{"from": "gpt", "value": "hi"}]
    file.write_text(json.dumps({"messages": turns}), encoding="utf-8")
    assert read_prompts(file) == [prompt], "what was answered is no part of the question"


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
        (b'{"messages": [{"role": "assistant", "content": "a"}]}', ":1: messages: expected one"),
        (b'{"messages": []}', ":1: messages: expected a list of at least one message"),
        (b'{"messages": [{"role": "user"}]}', r":1: messages: \[0\].content: expected a string"),
        (b"[]", ":1: expected an object with one of"),
        (b"\n \n", ": no prompts; expected one object a line"),
        (b'{"prompt": "\xff"}', ": not UTF-8"),
        (
            b'{"prompt": "a"}\n\n{"prompt": "a \\ud800 b"}',
            ":3: prompt: expected whole characters, got half of a pair$",
        ),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{file}{message}"):
        read_prompts(file)
    with pytest.raises(ValueError, match="absent.jsonl: cannot be read: No such file"):
        read_prompts(tmp_path / "absent.jsonl")


def test_all_tokens(folder: Path) -> None:
    """Each prompt's own, the longest that there may be among them."""
    llm = KangarooForCausalLM.from_pretrained(folder)
    longest = Prompt("\x00" * 200)
    room = llm.model.config.max_seq_len - len(longest.ids(llm.tokenizer))
    all_ids = encoded([BUILT_IN[0], longest], llm, room)
    assert all_ids == [prompt.ids(llm.tokenizer) for prompt in (BUILT_IN[0], longest)]


def test_a_prompt_that_does_not_fit(folder: Path, tmp_path: Path) -> None:
    """Is named by its line, or counted where there is no file."""
    llm = KangarooForCausalLM.from_pretrained(folder)
    file = tmp_path / "prompts.jsonl"
    chat = json.dumps({"messages": [{"role": "user", "content": "a"}]})
    file.write_text(f'{{"prompt": "ab"}}\n\n{json.dumps({"prompt": "0" * 200})}\n{chat}\n')
    short, long, talk = read_prompts(file)
    room = llm.model.config.max_seq_len - len(long.ids(llm.tokenizer))
    expected = f"max_new_tokens: expected at most {room} behind .* got {room + 1}$"
    with pytest.raises(ValueError, match=f"^{file}:3: {expected}"):
        encoded([short, long], llm, room + 1)
    with pytest.raises(ValueError, match=f"^prompt 2: {expected}"):
        encoded([short, replace(long, where="")], llm, room + 1)
    with pytest.raises(ValueError, match=f"^{file}:4: chat: expected a model with a chat template"):
        encoded([short, talk], llm, 1)
    llm.model.config = replace(llm.model.config, sliding_window=100)
    with pytest.raises(UnsupportedError, match=f"^{file}:3: sliding-window attention"):
        encoded([short, long], llm, 1)


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
