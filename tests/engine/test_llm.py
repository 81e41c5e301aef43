"""generate means what it means in transformers, whatever is drafted; the rest it refuses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, TextIteratorStreamer
from transformers.generation.streamers import BaseStreamer

from kangaroo import KangarooForCausalLM
from kangaroo.engine import drafting
from kangaroo.engine.decode import Decoder
from kangaroo.engine.llm import GenerateOutput
from kangaroo_kernels import UnsupportedError
from tests.engines import FIXED, PerfectDrafter
from tests.factories import edit_json
from tests.folders import make_folder

DEPTH = 4
NUM_TOKENS = 3 * (DEPTH + 1)


@pytest.fixture(scope="module")
def llm(folder: Path) -> KangarooForCausalLM:
    return KangarooForCausalLM.from_pretrained(folder, "deep_prefix")


@pytest.fixture(scope="module")
def prompt(llm: KangarooForCausalLM) -> Tensor:
    """One whose continuation starts with different tokens: each can end it at its own offset."""
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        prompt = torch.randint(2, 263, (1, 7), generator=generator)
        new = llm.generate(prompt, max_new_tokens=NUM_TOKENS, eos_token_id=None, max_depth=0)
        assert isinstance(new, Tensor)
        if len(set(new[0, 7:].tolist())) == NUM_TOKENS:
            return prompt
    raise AssertionError("the target repeats itself")


@pytest.fixture(scope="module")
def expected(llm: KangarooForCausalLM, prompt: Tensor) -> list[int]:
    """New tokens, autoregressively."""
    return new_ids(llm, prompt, max_depth=0)


def new_ids(llm: KangarooForCausalLM, prompt: Tensor, **options: Any) -> list[int]:
    options = {"max_new_tokens": NUM_TOKENS, "eos_token_id": None} | options
    sequences = llm.generate(prompt, **options)
    assert isinstance(sequences, Tensor)
    assert sequences.dtype == torch.int64
    assert sequences[:, : prompt.shape[1]].equal(prompt)
    return sequences[0, prompt.shape[1] :].tolist()


@pytest.fixture
def perfect(monkeypatch: pytest.MonkeyPatch, prompt: Tensor, expected: list[int]) -> None:
    """Every draft is what the target says."""
    tokens = prompt[0].tolist() + expected

    def make(model: Any, adapter: Any, draft: Any, **_: Any) -> PerfectDrafter:
        return PerfectDrafter(model, adapter, draft, tokens)

    monkeypatch.setattr(drafting, "chain_drafter", make)


class Recorder(BaseStreamer):
    """Keeps what it is given; fails at the `fails_at`-th put."""

    def __init__(self, fails_at: int = -1):
        self.values: list[Tensor] = []
        self.ends, self.fails_at = 0, fails_at

    def put(self, value: Tensor) -> None:
        if len(self.values) == self.fails_at:
            raise OSError("the pipe is closed")
        self.values.append(value)

    def end(self) -> None:
        self.ends += 1


# The same as transformers.


@pytest.mark.filterwarnings("ignore:Using the model-agnostic default")
@pytest.mark.parametrize("max_depth", [0, 3, None])
def test_options_mean_what_they_mean_in_transformers(
    folder: Path,
    prompt: Tensor,
    llm: KangarooForCausalLM,
    max_depth: int | None,
    expected: list[int],
) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    cases: list[dict[str, Any]] = [
        {"max_new_tokens": 9},
        {"max_length": 15},
        {},
        {"max_new_tokens": 9, "eos_token_id": expected[4]},
        {"max_new_tokens": 9, "eos_token_id": [expected[6], expected[3]]},
        {"max_new_tokens": 9, "eos_token_id": expected[0]},
        {"generation_config": GenerationConfig(max_new_tokens=5, eos_token_id=expected[2])},
        {"max_new_tokens": 9, "attention_mask": torch.ones_like(prompt)},
    ]
    for options in cases:
        ours = llm.generate(prompt, **options, max_depth=max_depth)
        assert isinstance(ours, Tensor)
        assert ours.equal(theirs.generate(prompt, **options)), options


def test_defaults_are_the_folders(tmp_path: Path, prompt: Tensor, expected: list[int]) -> None:
    """generation_config.json if there is one; config.json if there is not, as in transformers."""
    folder = make_folder(tmp_path)
    edit_json(folder / "generation_config.json", max_new_tokens=6, eos_token_id=expected[9])
    options: dict[str, Any] = {"adapter": "paper"}
    llm = KangarooForCausalLM.from_pretrained(folder, **options)
    assert llm.generate(prompt).shape == (1, 7 + 6)
    (folder / "generation_config.json").unlink()
    edit_json(folder / "config.json", eos_token_id=expected[9])
    llm = KangarooForCausalLM.from_pretrained(folder, **options)
    assert llm.generate(prompt, max_new_tokens=15).shape == (1, 7 + 10)


# Where a sequence ends, when every draft is accepted.


@pytest.mark.usefixtures("perfect")
@pytest.mark.parametrize("max_new_tokens", range(1, 13))
def test_exactly_as_many_tokens_as_asked_for(
    llm: KangarooForCausalLM, prompt: Tensor, expected: list[int], max_new_tokens: int
) -> None:
    options = FIXED | {"max_new_tokens": max_new_tokens, "max_depth": DEPTH}
    assert new_ids(llm, prompt, **options) == expected[:max_new_tokens]


@pytest.mark.usefixtures("perfect")
@pytest.mark.parametrize("offset", range(2 * (DEPTH + 1)))
def test_nothing_follows_an_end_of_sequence_token(
    llm: KangarooForCausalLM, prompt: Tensor, expected: list[int], offset: int
) -> None:
    """At every offset of an accepted block, the very first token included."""
    ids = new_ids(llm, prompt, eos_token_id=expected[offset], max_depth=DEPTH, **FIXED)
    assert ids == expected[: offset + 1]


@pytest.mark.parametrize("tree", [{}, {"max_nodes": 40, "draft_top_k": 3}, {"tree_widths": [3]}])
def test_trees(llm: KangarooForCausalLM, prompt: Tensor, expected: list[int], tree: Any) -> None:
    given = {"max_new_tokens": NUM_TOKENS, "eos_token_id": None}
    rounds = llm.rounds(prompt, draft="tree", **FIXED, **tree, **given)
    assert [token for each in rounds for token in each.tokens] == expected
    assert rounds.speculation.num_drafted > rounds.speculation.num_rounds


# Streaming.


@pytest.mark.parametrize("max_depth", [0, DEPTH])
@pytest.mark.usefixtures("perfect")
def test_what_is_streamed_is_what_is_returned(
    llm: KangarooForCausalLM, prompt: Tensor, max_depth: int
) -> None:
    streamer = Recorder()
    options = FIXED | {"max_new_tokens": 12, "eos_token_id": None, "max_depth": max_depth}
    sequences = llm.generate(prompt, streamer=streamer, **options)
    assert streamer.values[0].equal(prompt)
    assert [len(value) for value in streamer.values[1:]] == ([5, 5, 2] if max_depth else [1] * 12)
    new = torch.cat(streamer.values[1:])
    assert torch.cat([prompt[0], new]).equal(torch.as_tensor(sequences)[0])
    assert streamer.ends == 1


def test_text_streamers_of_transformers(llm: KangarooForCausalLM, prompt: Tensor) -> None:
    streamer = TextIteratorStreamer(llm.tokenizer, skip_prompt=True, timeout=0)
    ids = new_ids(llm, prompt, streamer=streamer)
    assert "".join(streamer) == llm.tokenizer.decode(ids)


def test_streamers_end_on_errors(
    llm: KangarooForCausalLM, prompt: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusals, errors of the streamer itself, and errors in the middle of decoding."""
    refused, failing, interrupted = Recorder(), Recorder(fails_at=2), Recorder()
    with pytest.raises(ValueError, match="no option odd"):
        llm.generate(prompt, streamer=refused, odd=1)
    with pytest.raises(OSError, match="the pipe is closed"):
        llm.generate(prompt, streamer=failing)
    verify, calls = Decoder.verify, count()

    def breaks(*args: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return verify(*args)

    monkeypatch.setattr(Decoder, "verify", breaks)
    with pytest.raises(KeyboardInterrupt):
        llm.generate(prompt, streamer=interrupted)
    assert [s.ends for s in (refused, failing, interrupted)] == [1, 1, 1]
    assert [len(s.values) for s in (refused, failing, interrupted)] == [0, 2, 3]


# What is returned.


@pytest.mark.usefixtures("perfect")
def test_the_output_with_statistics(
    llm: KangarooForCausalLM, prompt: Tensor, expected: list[int]
) -> None:
    options = FIXED | {"max_new_tokens": 12, "eos_token_id": None, "max_depth": DEPTH}
    output = llm.generate(prompt, return_dict_in_generate=True, **options)
    assert isinstance(output, GenerateOutput)
    assert output["sequences"] is output.sequences is output[0]
    assert output.sequences is not None
    assert output.sequences.tolist() == [prompt[0].tolist() + expected[:12]]
    speculation = output.speculation
    assert speculation is not None
    assert (speculation.num_rounds, speculation.num_tokens) == (3, 12)
    assert speculation.accepted_lens == (0, 1, 0, 0, 2)
    assert speculation.acceptance_rate == 1.0
    assert speculation.seconds.prefill > 0
    assert speculation.seconds.verify > 0


def test_lists_of_ids(llm: KangarooForCausalLM, prompt: Tensor) -> None:
    ours = llm.generate(prompt[0].tolist(), max_new_tokens=3)
    assert torch.as_tensor(ours).equal(torch.as_tensor(llm.generate(prompt, max_new_tokens=3)))


def test_rounds_come_one_by_one(llm: KangarooForCausalLM, prompt: Tensor) -> None:
    rounds = llm.rounds(prompt, max_new_tokens=6, eos_token_id=None, max_depth=0)
    assert [len(each.tokens) for each in rounds] == [1] * 6
    assert rounds.tokens == new_ids(llm, prompt, max_new_tokens=6)


# Refusals, before anything is computed.


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g, x: g(x, odd=1, max_tokens=2), ValueError, "no option max_tokens, odd"),
        (lambda g, x: g(x, do_sample="yes"), ValueError, "do_sample: expected True or False"),
        (lambda g, x: g(x, seed=3), ValueError, "seed=3: has no effect on greedy decoding"),
        (lambda g, x: g(x, do_sample=True, temperature=0.0), ValueError, "temperature"),
        (lambda g, x: g(x, do_sample=True, seed=-1), ValueError, "seed: expected a whole number"),
        (lambda g, x: g(x, temperature=0.5), ValueError, "temperature=0.5: has no effect"),
        (lambda g, x: g(x, num_beams=4), UnsupportedError, "num_beams=4: not supported"),
        (lambda g, x: g(x, stopping_criteria=[1]), ValueError, "stopping_criteria: expected"),
        (lambda g, x: g(x.float()), ValueError, "input_ids: expected integers, got torch.float32"),
        (lambda g, x: g(x[0]), ValueError, r"input_ids: expected shape \[B, T\], got \[7\]"),
        (lambda g, x: g([[5], []]), ValueError, "prompt: expected at least one token, got none"),
        (lambda g, x: g(x, output_logits=True), ValueError, "output_logits: has no effect"),
        (lambda g, x: g(x, attention_mask=x[:, 1:]), ValueError, "attention_mask: expected shape"),
        (lambda g, x: g([]), ValueError, "prompt: expected at least one token, got none"),
        (lambda g, x: g([0.5]), ValueError, "input_ids: expected integers"),
        (lambda g, x: g([263]), ValueError, r"prompt: expected tokens in \[0, 263\), got 263"),
        (lambda g, x: g(x, max_new_tokens=250), ValueError, "expected at most 249 behind 7"),
        (lambda g, x: g(x, attention_mask=x * 0), UnsupportedError, "padding on the left alone"),
        (lambda g, x: g(x, max_depth=64), ValueError, "max_depth: expected 0 to 63, got 64"),
        (lambda g, x: g(x, confidence=1.5), ValueError, "confidence: expected 0 to 1, got 1.5"),
        (lambda g, x: g(x, draft="forest"), ValueError, "draft: expected one of"),
        (lambda g, x: g(x, max_nodes=8), ValueError, "max_nodes: has no effect on draft='chain'"),
        (lambda g, x: g(x, exit_layer=2), ValueError, "the adapter was trained for 1, got 2"),
        (lambda g, x: g(x, exit_layer=2, max_depth=0), ValueError, "exit_layer: expected 1 to 1"),
    ],
)
def test_refusals(
    llm: KangarooForCausalLM,
    prompt: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(Decoder, "prefill", lambda *_: pytest.fail("something was computed"))
    for method in (llm.generate, llm.rounds):
        with pytest.raises(error, match=message):
            call(method, prompt)


def test_without_an_adapter(folder: Path, prompt: Tensor, expected: list[int]) -> None:
    """Nothing can be drafted, and only who says so gets none drafted."""
    bare = KangarooForCausalLM.from_pretrained(folder)
    for options in ({}, {"max_depth": 3}):
        with pytest.raises(ValueError, match="adapter: none is loaded.*adapter=DIR.*draft='off'"):
            new_ids(bare, prompt, **options)
    assert new_ids(bare, prompt, max_depth=0) == expected
    assert new_ids(bare, prompt, max_depth=0, exit_layer=1) == expected
