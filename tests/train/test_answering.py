"""What a target is asked, turn by turn, and the rows that its answers come to."""

import json
from pathlib import Path
from typing import Any

import pytest

from kangaroo.train.answering import add_turn, turns_of
from kangaroo.train.documents import Line
from tests.train.tiny import CHAT_TEMPLATE, make_tokenizer

ANSWER = "hop!"


def prompts(record: dict[str, Any], template: str | None) -> list[str]:
    """Every prompt, where the answer is always the same and ends as it should."""
    tokenizer = make_tokenizer(template)
    turns = turns_of(Line(Path("a.jsonl"), 1, json.dumps(record).encode()), tokenizer, 4)
    answer = tokenizer(ANSWER + "<end>", add_special_tokens=False)["input_ids"]
    asked, found = next(turns), list[str]()
    while True:
        found.append(tokenizer.decode(asked))
        try:
            asked = turns.send(answer)
        except StopIteration:
            return found


def conversation(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": role[0]} for role in roles]}


def test_later_turns_see_the_new_answers() -> None:
    one = "<s><turn>system\ns<end>\n<turn>user\nu<end>\n<turn>assistant\n"
    two = one + "hop!<end>\n<turn>user\nu<end>\n<turn>assistant\n"
    roles = ("system", "user", "assistant", "user")
    assert prompts(conversation(*roles, "assistant"), CHAT_TEMPLATE) == [one, two]
    assert prompts(conversation(*roles), CHAT_TEMPLATE) == [one, two]  # the user's is answered too
    plain = "<s>user: u\nassistant:"
    assert prompts(conversation("user", "assistant", "user"), None) == [
        plain,
        plain + " hop!\nuser: u\nassistant:",
    ]


def test_the_beginning_of_a_text_is_continued() -> None:
    assert prompts({"text": "kangaroo"}, None) == ["<s>kan"]
    assert prompts({"text": "k"}, None) == ["<s>k"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"input_ids": [1, 9], "loss_mask": [0, 1]}, "tokens cannot be answered again"),
        ({"text": ""}, "text: expected at least one character"),
        (conversation("assistant"), r"\[0\]\.role: expected a message in front"),
    ],
)
def test_what_has_no_prompt(record: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompts(record, CHAT_TEMPLATE)


def test_a_turn_continues_the_row_that_its_prompt_begins_with() -> None:
    rows: list[dict[str, list[int]]] = []
    add_turn(rows, [1, 5], [6, 7])
    add_turn(rows, [1, 5, 6, 7, 8], [9])
    assert rows == [{"input_ids": [1, 5, 6, 7, 8, 9], "loss_mask": [0, 0, 1, 1, 0, 1]}]
    add_turn(rows, [1, 5, 6, 6, 8, 9, 3], [4])
    assert rows[1:] == [
        {"input_ids": [1, 5, 6, 6, 8, 9, 3, 4], "loss_mask": [0, 0, 0, 0, 0, 0, 0, 1]}
    ]
