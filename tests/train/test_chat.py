"""Exactly the assistant's words, and what ends its turn, are answers."""

import pytest

from kangaroo.train.chat import Message, encode_conversation, parse_messages
from tests.train.tiny import CHAT_TEMPLATE, make_tokenizer

# Rewrites the last turn, as templates of reasoning models do.
THINKING = CHAT_TEMPLATE.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ m.content }}",
)

# Drops what was thought in all turns but the last one, as Qwen3's does.
FORGETS_THOUGHTS = CHAT_TEMPLATE.replace(
    "{{ m.content }}", "{{ m.content if loop.last else m.content.split('</think>')[-1] }}"
)


def conversation(*turns: str) -> list[Message]:
    """The user begins; turns alternate."""
    roles = ["user", "assistant"] * len(turns)
    return [{"role": r, "content": c} for r, c in zip(roles, turns, strict=False)]


def answers(messages: list[Message], template: str | None) -> list[str]:
    """The text of every unbroken run of answer tokens."""
    tokenizer = make_tokenizer(template)
    ids, answer = encode_conversation(messages, tokenizer)
    assert len(ids) == len(answer)
    runs: list[list[int]] = []
    for token, before, now in zip(ids, [False, *answer], answer, strict=False):
        if now:
            runs.extend([] if before else [[]])
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs]


def test_template() -> None:
    messages = conversation("which?", "the héron", "yes?", "yes")
    assert answers(messages, CHAT_TEMPLATE) == ["the héron<end>\n", "yes<end>\n"]


def test_the_question_may_quote_the_answer() -> None:
    assert answers(conversation("say yes", "yes"), CHAT_TEMPLATE) == ["yes<end>\n"]


def test_a_template_that_rewrites_the_last_turn() -> None:
    messages = conversation("a?", "hop", "b?", "hop")
    assert answers(messages, THINKING) == ["hop<end>\n", "<think></think>hop<end>\n"]


def test_the_last_turn_may_be_the_user_s() -> None:
    assert answers(conversation("a?", "hop", "b?"), CHAT_TEMPLATE) == ["hop<end>\n"]


def test_a_template_that_drops_an_answer_is_refused() -> None:
    forgetful = CHAT_TEMPLATE.replace("{{ m.content }}", "{{ m.content if loop.last else '' }}")
    with pytest.raises(ValueError, match=r"\[1\]\.content: the chat template"):
        answers(conversation("a?", "hop", "b?", "sleep"), forgetful)


def test_no_answer_reaches_into_the_next_turn() -> None:
    thought = "<think>2 is</think>yes"
    assert answers(conversation("a?", thought), FORGETS_THOUGHTS) == [f"{thought}<end>\n"]
    assert answers(conversation("a?", "yes", "b?", thought), FORGETS_THOUGHTS) == [
        "yes<end>\n",
        f"{thought}<end>\n",
    ]
    with pytest.raises(ValueError, match=r"\[1\]\.content: the chat template"):
        answers(conversation("a?", thought, "b?", thought), FORGETS_THOUGHTS)


@pytest.mark.parametrize("answer", ["end", "e", ">", "<end>", "think", "", "answer0"])
def test_answers_that_the_template_s_own_text_holds(answer: str) -> None:
    messages = conversation("a?", answer, "b?", answer)
    assert answers(messages, CHAT_TEMPLATE) == [f"{answer}<end>\n"] * 2
    last = f"<think></think>{answer}<end>\n"
    assert answers(messages, THINKING) == [f"{answer}<end>\n", last]


@pytest.mark.parametrize("answer", ["\n", " end \n", "yes\n\n", "\u2028<<"])
def test_white_space_is_as_the_template_has_it(answer: str) -> None:
    trims = CHAT_TEMPLATE.replace("m.content", "m.content | trim")
    messages = conversation("a?", answer, "b?", answer)
    assert answers(messages, CHAT_TEMPLATE) == [f"{answer}<end>\n"] * 2
    assert answers(messages, trims) == [f"{answer.strip()}<end>\n"] * 2


def test_a_template_that_changes_an_answer_is_refused() -> None:
    denies = CHAT_TEMPLATE.replace("m.content", "m.content.replace('yes', 'no')")
    assert answers(conversation("a?", "hop"), denies) == ["hop<end>\n"]
    with pytest.raises(ValueError, match=r"\[1\]\.content: the chat template"):
        answers(conversation("a?", "yes"), denies)


def test_calls_of_tools_are_refused() -> None:
    message = {"role": "assistant", "content": "", "tool_calls": None}
    assert parse_messages([message]) == [{"role": "assistant", "content": ""}]
    with pytest.raises(ValueError, match=r"^\[1\]\.tool_calls: expected none, got \[\{'id'"):
        parse_messages([message, message | {"content": None, "tool_calls": [{"id": "a"}]}])


def test_without_a_template() -> None:
    messages = conversation("which?", "hop", "really?", "no")
    assert answers(messages, None) == ["hop\n", "no\n</s>"]
    assert answers(messages[:3], None) == ["hop\n"]


def test_a_token_across_the_border_belongs_to_the_answer() -> None:
    """ "assistant: yes": the space before "yes" is in one token with its first letter."""
    assert answers(conversation("which?", "yes"), None) == [" yes\n</s>"]


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE])
def test_the_first_token_is_bos(template: str | None) -> None:
    ids, answer = encode_conversation(conversation("a", "b"), make_tokenizer(template))
    assert (ids[0], answer[0]) == (1, False)
    assert ids.count(1) == 1
