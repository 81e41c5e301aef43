"""What is streamed is text in whole characters, and ends where it must, whatever drafts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    TextIteratorStreamer,
)

from kangaroo import KangarooForCausalLM, terminal
from kangaroo.engine.decode import Decoder
from kangaroo.engine.detokenize import UNFINISHED
from tests.engines import FIXED

TEXT = "naïve 日本語 🦘🇦🇺 e\u0301 end"  # nearly every character is several tokens, a byte each
SAMPLED = {"do_sample": True, "seed": 4}
TREE = FIXED | {"draft": "tree", "max_nodes": 24, "confidence": 0.0}
DRAFTS: list[dict[str, Any]] = [
    {"max_depth": 0},
    FIXED | {"max_depth": 4, "confidence": 0.0},
    TREE,
    FIXED | {"max_depth": 4, "confidence": 0.0} | SAMPLED,
    TREE | SAMPLED,
]


class Dictation(LogitsProcessor):
    """Lets nothing be written but `ids` behind the prompt, then anything."""

    def __init__(self, prompt_len: int, ids: list[int]):
        self.prompt_len, self.ids = prompt_len, ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        place = input_ids.shape[1] - self.prompt_len
        if place >= len(self.ids):
            return scores
        only = torch.full_like(scores, -torch.inf)
        only[:, self.ids[place]] = 0.0
        return only


@pytest.fixture(scope="module")
def llm(folder: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(folder, "deep_prefix")


@pytest.fixture(scope="module")
def prompt(llm: KangarooForCausalLM) -> list[int]:
    return list(llm.tokenizer("say é:")["input_ids"])


@pytest.fixture(scope="module")
def said(llm: KangarooForCausalLM) -> list[int]:
    return list(llm.tokenizer(TEXT)["input_ids"][1:])


@pytest.fixture
def options(prompt: list[int], said: list[int]) -> dict[str, Any]:
    """A continuation that is TEXT."""
    dictation = LogitsProcessorList([Dictation(len(prompt), said)])
    return {"logits_processor": dictation, "max_new_tokens": len(said), "eos_token_id": None}


@pytest.mark.parametrize("draft", DRAFTS, ids=str)
def test_the_terminal_gets_whole_characters(
    llm: KangarooForCausalLM,
    prompt: list[int],
    options: dict[str, Any],
    draft: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pieces: list[str] = []
    monkeypatch.setattr(terminal.typer, "echo", lambda text, **_: pieces.append(text))
    terminal.stream(llm, prompt, llm.rounds(prompt, **options | draft))
    assert "".join(pieces) == TEXT + "\n"
    assert not any(UNFINISHED in piece for piece in pieces)
    assert sum(map(bool, pieces)) > 10  # as they come, not at the end


@pytest.mark.parametrize("draft", DRAFTS, ids=str)
def test_text_streamers_get_the_text(
    llm: KangarooForCausalLM, prompt: list[int], options: dict[str, Any], draft: dict[str, Any]
) -> None:
    streamer = TextIteratorStreamer(llm.tokenizer, skip_prompt=True, timeout=0)
    llm.generate(prompt, streamer=streamer, **options | draft)
    assert "".join(streamer) == TEXT


@pytest.mark.parametrize("draft", DRAFTS, ids=str)
def test_text_streamers_end_on_errors(
    llm: KangarooForCausalLM,
    prompt: list[int],
    options: dict[str, Any],
    draft: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the middle of decoding: who waits for more text is not left waiting."""
    verify, calls = Decoder.verify, []

    def breaks(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise OSError("out of order")
        return verify(*arguments)

    monkeypatch.setattr(Decoder, "verify", breaks)
    streamer = TextIteratorStreamer(llm.tokenizer, skip_prompt=True, timeout=0)
    with pytest.raises(OSError, match="out of order"):
        llm.generate(prompt, streamer=streamer, **options | draft)
    written = "".join(streamer)  # it ends
    assert TEXT.startswith(written.rstrip(UNFINISHED))


@pytest.mark.parametrize("draft", DRAFTS, ids=str)
@pytest.mark.parametrize("stop", ["ï", "本", "🦘", "🇺", " e"])
def test_stop_strings_end_where_transformers_does(
    llm: KangarooForCausalLM,
    folder: Path,
    prompt: list[int],
    options: dict[str, Any],
    stop: str,
    draft: dict[str, Any],
) -> None:
    """In the middle of a round, and of a text of which most tokens are pieces of a character."""
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder)
    given = {"stop_strings": [stop], "tokenizer": llm.tokenizer}
    expected = theirs.generate(torch.tensor([prompt]), do_sample=False, **options | given)
    assert expected.shape[1] < len(prompt) + options["max_new_tokens"]
    ours = llm.generate(torch.tensor([prompt]), **options | given | draft)
    assert torch.as_tensor(ours).equal(expected)
